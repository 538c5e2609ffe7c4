"""Narrower layers: channels, heads and hidden dimensions stay by how strongly a text uses them.

    [student.width]
    channels = 768          # of each MLP
    kv_heads = 2            # each with the queries that share it
    hidden = 512            # of everything

A channel's importance is the mean square of what it carries times the squares of the weights that read it, from the
same activations that calibrate a quantization (Muralidharan et al. 2024, "Minitron", arXiv:2407.14679, take activations
alone). Gains of norms are corrected for the energy of the dimensions that go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import UsageError
from edge.export import sharded
from edge.export.calibrate import activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.progress import Progress

LEARNS = True
# Types whose norms multiply by their gain, and whose layers have nothing but what is cut here.
_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Options:
    """What stays of each; what is not named stays whole."""

    channels: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None


@dataclass(frozen=True)
class _Kept:
    """Indices that stay: hidden dimensions of the model; channels and columns of attention of each layer."""

    hidden: np.ndarray
    channels: list[np.ndarray]
    queries: list[np.ndarray]
    values: list[np.ndarray]
    energy: Mapping[str, float]  # of what stays, by the norm that is corrected for it


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the narrower checkpoint. Raises `UsageError` for sizes that make no sense, and for other architectures."""
    config = checkpoint.config
    if checkpoint.model_type not in _TYPES:
        raise UsageError(
            f"the width of a {checkpoint.model_type!r} cannot be cut", hint=f"it can of: {', '.join(_TYPES)}"
        )
    heads = int(config["num_attention_heads"])
    whole = {
        "channels": int(config["intermediate_size"]),
        "kv_heads": int(config.get("num_key_value_heads") or heads),
        "hidden": int(config["hidden_size"]),
    }
    asked = {name: getattr(options, name) or n for name, n in whole.items()}
    for name, n in asked.items():
        if n > whole[name]:
            raise UsageError(
                f"[student.width] {name}: {n} were asked for, {checkpoint.name} has {whole[name]}",
                hint="a student is smaller than its teacher",
            )
    if asked == whole:
        raise UsageError("[student.width] cuts nothing", hint="say how many channels, kv_heads or hidden are to stay")
    left = heads // whole["kv_heads"] * asked["kv_heads"]
    if asked["hidden"] % left:
        raise UsageError(
            f"[student.width] hidden: {asked['hidden']} is no multiple of the {left} heads, which transformers wants",
            hint=f"take {asked['hidden'] // left * left} or {(asked['hidden'] // left + 1) * left}",
        )
    kept = _choose(checkpoint, asked, whole, activation_statistics(checkpoint, given.sample, progress))
    progress.start("cutting the width")
    width = int(config.get("head_dim") or whole["hidden"] // heads)
    made = {
        **config,
        "hidden_size": asked["hidden"],
        "intermediate_size": asked["channels"],
        "num_attention_heads": left,
        "num_key_value_heads": asked["kv_heads"],
        "head_dim": width,
    }
    sharded.copy_side_files(checkpoint.folder, folder)
    sharded.save(_tensors(checkpoint, kept), made, folder)
    return {name: {"kept": asked[name], "of": whole[name]} for name in whole}


def _choose(
    checkpoint: Checkpoint, asked: Mapping[str, int], whole: Mapping[str, int], squares: Mapping[str, np.ndarray]
) -> _Kept:
    n_layers = int(checkpoint.config["num_hidden_layers"])
    heads = int(checkpoint.config["num_attention_heads"])
    width = int(checkpoint.config.get("head_dim") or whole["hidden"] // heads)
    shared = heads // whole["kv_heads"]
    channels, queries, values = [], [], []
    energies: dict[str, np.ndarray] = {}
    for i in range(n_layers):
        front = f"model.layers.{i}"
        channels.append(_best(_used(checkpoint, squares, f"{front}.mlp.down_proj.weight"), asked["channels"]))
        carried = _used(checkpoint, squares, f"{front}.self_attn.o_proj.weight")
        groups = _best(carried.reshape(whole["kv_heads"], -1).sum(1), asked["kv_heads"])
        values.append((groups[:, None] * width + np.arange(width)).reshape(-1))
        queries.append((groups[:, None] * width * shared + np.arange(width * shared)).reshape(-1))
        for norm, reader in (
            (f"{front}.input_layernorm.weight", f"{front}.self_attn.q_proj.weight"),
            (f"{front}.post_attention_layernorm.weight", f"{front}.mlp.gate_proj.weight"),
        ):
            energies[norm] = squares[reader] / np.maximum(np.square(checkpoint.read(norm)), 1e-12)
    # The residual stream is one: a dimension counts by its share in what every layer reads.
    hidden = _best(np.sum([e / e.sum() for e in energies.values()], axis=0), asked["hidden"])
    left = {norm: float(e[hidden].mean() / e.mean()) for norm, e in energies.items()}
    left["model.norm.weight"] = left[f"model.layers.{n_layers - 1}.post_attention_layernorm.weight"]
    return _Kept(hidden, channels, queries, values, left)


def _used(checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], reader: str) -> np.ndarray:
    """How much of what a matrix gives comes from each of its columns."""
    out: np.ndarray = squares[reader] * np.square(checkpoint.read(reader)).sum(0)
    return out


def _best(scores: np.ndarray, keep: int) -> np.ndarray:
    """The indices of the largest, in their order."""
    return np.sort(np.argsort(-scores, kind="stable")[:keep])


def _tensors(checkpoint: Checkpoint, kept: _Kept) -> Iterator[tuple[str, Any]]:
    import torch

    for name in checkpoint.tensors:
        values = cut(name, checkpoint.read(name), kept)
        if name in kept.energy:
            values = values * np.float32(kept.energy[name] ** 0.5)
        yield name, torch.from_numpy(np.ascontiguousarray(values))


def cut(name: str, values: np.ndarray, kept: _Kept) -> np.ndarray:
    """What stays of a tensor. Raises `UsageError` for one that no layer of these types has."""
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        return values[:, kept.hidden]
    if name == "model.norm.weight":
        return values[kept.hidden]
    if (found := _LAYER.fullmatch(name)) is None:
        raise UsageError(f"the width cannot be cut: there is no place for {name}")
    i, part = int(found[1]), found[2]
    hidden = kept.hidden
    # Which rows and which columns of each matrix stay; a bias has rows alone.
    places: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {
        "self_attn.q_proj": (kept.queries[i], hidden),
        "self_attn.k_proj": (kept.values[i], hidden),
        "self_attn.v_proj": (kept.values[i], hidden),
        "self_attn.o_proj": (hidden, kept.queries[i]),
        "mlp.gate_proj": (kept.channels[i], hidden),
        "mlp.up_proj": (kept.channels[i], hidden),
        "mlp.down_proj": (hidden, kept.channels[i]),
        "input_layernorm": (hidden, None),
        "post_attention_layernorm": (hidden, None),
        "self_attn.q_norm": (None, None),
        "self_attn.k_norm": (None, None),
    }
    if part not in places:
        raise UsageError(f"the width cannot be cut: there is no place for {name}")
    rows, columns = places[part]
    out = values if rows is None else values[rows]
    return out if columns is None or out.ndim == 1 else out[:, columns]
