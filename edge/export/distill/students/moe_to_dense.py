"""From experts to one MLP: the mixture becomes a dense model that computes every token alike.

    [student.moe-to-dense]
    how = "select"
    experts = 2

"merge" averages the experts' matrices by how much they are used, which makes sense for experts that began as one
(sparse upcycling). "select" puts those that are used most side by side, each weighed as its router did on average: as
many channels as they have together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import UsageError
from edge.export import expert_use, experts, sharded
from edge.export.calibrate import activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.export.experts import Layer
from edge.progress import Progress

LEARNS = True
# Model type of the mixture -> what it is without experts: all else of the layers is the same.
_DENSE = {
    "mixtral": ("llama", "LlamaForCausalLM"),
    "qwen3_moe": ("qwen3", "Qwen3ForCausalLM"),
    "granitemoe": ("granite", "GraniteForCausalLM"),
}
_HOW = ("merge", "select")
_OF_EXPERTS = (
    "num_local_experts", "num_experts", "num_experts_per_tok", "router_aux_loss_coef", "output_router_logits",
    "router_jitter_noise", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """`how` is "merge" or "select"; `experts` is how many are selected."""

    how: str = "select"
    experts: int = 1


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the dense checkpoint. Raises `UsageError` for one that has no experts, or too few."""
    layers = experts.layers(checkpoint)
    if not layers or checkpoint.model_type not in _DENSE:
        raise UsageError(
            f"{checkpoint.name} ({checkpoint.model_type}) is no mixture that can be made dense",
            hint=f"these can: {', '.join(_DENSE)}",
        )
    if options.how not in _HOW:
        raise UsageError(f"[student.moe-to-dense] how: there is no {options.how!r}", hint="merge or select")
    n = experts.count(checkpoint.config)
    if options.experts > n:
        raise UsageError(f"[student.moe-to-dense] experts: {options.experts} were asked for, there are {n}")
    if len(layers) != int(checkpoint.config["num_hidden_layers"]):
        raise UsageError(f"{checkpoint.name} has layers with and without experts, which cannot become one kind")
    statistics = activation_statistics(checkpoint, given.sample, progress)
    use = {layer.index: statistics[expert_use.key(layer.index)] for layer in layers}
    progress.start("making the mixture dense")
    sharded.copy_side_files(checkpoint.folder, folder)
    made: dict[str, list[int]] = {}
    tensors = dict(_tensors(checkpoint, layers, options, use, made))
    model_type, architecture = _DENSE[checkpoint.model_type]
    config = {k: v for k, v in checkpoint.config.items() if k not in _OF_EXPERTS}
    inner = tensors[f"model.layers.{layers[0].index}.mlp.up_proj.weight"].shape[0]
    config |= {"model_type": model_type, "architectures": [architecture], "intermediate_size": inner}
    if model_type == "llama":
        config |= {"attention_bias": False, "mlp_bias": False}
    sharded.save(tensors.items(), config, folder)
    return {"how": options.how, "of": n, "experts": made}


def _tensors(
    checkpoint: Checkpoint,
    layers: tuple[Layer, ...],
    options: Options,
    use: Mapping[int, np.ndarray],
    made: dict[str, list[int]],
) -> Iterator[tuple[str, Any]]:
    import torch

    of_experts = {name for layer in layers for name in layer.names}
    for name in checkpoint.tensors:
        if name not in of_experts:
            yield name, torch.from_numpy(np.ascontiguousarray(checkpoint.read(name)))
    for layer in layers:
        _, weight = use[layer.index]
        if options.how == "merge":
            share = weight / max(float(weight.sum()), 1e-12)
            chosen = list(range(len(share)))
            parts = [experts.read(checkpoint, layer, e) for e in chosen]
            matrices = [sum(s * p[k] for s, p in zip(share, parts, strict=True)) for k in range(3)]
        else:
            chosen = sorted(sorted(range(len(weight)), key=lambda e: -float(weight[e]))[: options.experts])
            parts = [experts.read(checkpoint, layer, e) for e in chosen]
            # What the router gives each of them on average, were the others never chosen.
            share = weight[chosen] / max(float(weight[chosen].sum()), 1e-12)
            matrices = [np.concatenate([p[k] for p in parts]) for k in (0, 1)]
            matrices.append(np.concatenate([p[2] * s for p, s in zip(parts, share, strict=True)], axis=1))
        made[str(layer.index)] = chosen
        for part, matrix in zip(("gate", "up", "down"), matrices, strict=True):
            values = torch.from_numpy(np.ascontiguousarray(matrix, np.float32))
            yield f"model.layers.{layer.index}.mlp.{part}_proj.weight", values
