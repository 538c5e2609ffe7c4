"""Fewer layers: those stay whose absence changes the answers most.

    [student.depth]
    layers = 16

A layer's importance is measured, not guessed: one after the other is left out, the one that changes the model's
answers least on a text goes, and what is left is measured again when a quarter is gone. How much is the mean KLD to the
whole model (Kim et al. 2024, "Shortened LLaMA", arXiv:2402.02834, rank layers by the perplexity without them, once).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export import sharded
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.export.distill.precision import computing
from edge.export.reference import load_model
from edge.progress import Progress

LEARNS = True
_ROUNDS = 4
_TOKENS = 384  # of the sample; each layer's absence is one pass over them
PER_LAYER = ("layer_types", "no_rope_layers")  # in a configuration, one entry for each layer
_CHOICES = ("importance", "even")


@dataclass(frozen=True)
class Options:
    """`layers` is how many stay; `choose` is "importance", or "even" for every so many-th: what to compare with."""

    layers: int
    choose: str = "importance"


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the checkpoint of fewer layers. Raises `UsageError` for a number that makes no sense."""
    n = int(checkpoint.config.get("num_hidden_layers", 0))
    if not 1 <= options.layers < n:
        raise UsageError(
            f"cannot keep {options.layers} layers of {checkpoint.name}, which has {n}",
            hint=f"keep 1 to {n - 1}: a student is smaller than its teacher",
        )
    if options.choose not in _CHOICES:
        raise UsageError(f"[student.depth] choose: there is no {options.choose!r}", hint="importance or even")
    kept = even(n, options.layers) if options.choose == "even" else None
    if kept is None:
        kept = _by_importance(checkpoint, options.layers, given, progress)
    write(checkpoint, kept, folder)
    return {"layers": options.layers, "of": n, "kept": list(kept), "chosen_by": options.choose}


def even(n: int, keep: int) -> tuple[int, ...]:
    """The first, the last, and those between at equal distances."""
    return tuple(round(i * (n - 1) / max(1, keep - 1)) for i in range(keep))


def _by_importance(checkpoint: Checkpoint, keep: int, given: Given, progress: Progress) -> tuple[int, ...]:
    import torch

    model = load_model(checkpoint)
    layers = list(model.model.layers)
    windows: list[tuple[int, ...]] = []
    for window in given.sample.windows:
        if sum(map(len, windows)) < _TOKENS:
            windows.append(window)
    left = list(range(len(layers)))
    with torch.inference_mode(), computing():
        wanted = [_answers(model, window) for window in windows]
        gone_each = -(-(len(left) - keep) // _ROUNDS)
        total = sum(max(keep, len(left) - i * gone_each) for i in range(_ROUNDS))
        progress.start("measuring what each layer is worth", total)
        done = 0
        while len(left) > keep:
            costs = {}
            for i in left:
                model.model.layers = torch.nn.ModuleList(layers[j] for j in left if j != i)
                costs[i] = sum(_kld(w, _answers(model, text)) for w, text in zip(wanted, windows, strict=True))
                done += 1
                progress.advance(min(done, total))
            for i in sorted(left, key=costs.__getitem__)[: min(gone_each, len(left) - keep)]:
                left.remove(i)
    return tuple(left)


def _answers(model: Any, window: Sequence[int]) -> Any:
    import torch

    return model(torch.tensor([list(window)]), use_cache=False).logits[0].float().log_softmax(-1)


def _kld(wanted: Any, found: Any) -> float:
    return float((wanted.exp() * (wanted - found)).sum())


def write(checkpoint: Checkpoint, kept: Sequence[int], folder: Path) -> None:
    """The folder of the checkpoint with those layers alone, in their order, as the files have them."""
    sharded.copy_side_files(checkpoint.folder, folder)
    sharded.save(_tensors(checkpoint, kept), shortened(checkpoint.config, kept), folder)


def shortened(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The configuration of a model with those layers."""
    made = json.loads(json.dumps(dict(config)))
    n = made["num_hidden_layers"]
    made["num_hidden_layers"] = len(kept)
    for key in PER_LAYER:
        if isinstance(made.get(key), list) and len(made[key]) == n:
            made[key] = [made[key][i] for i in kept]
    return dict(made)


def _tensors(checkpoint: Checkpoint, kept: Sequence[int]) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    place = {old: new for new, old in enumerate(kept)}
    for name, info in checkpoint.tensors.items():
        new = renamed(name, place)
        if new is None:
            continue
        with safe_open(checkpoint.folder / info.file, framework="pt") as file:
            yield new, file.get_tensor(name)


def renamed(name: str, place: Mapping[int, int]) -> str | None:
    """A tensor's name when its layer has moved; nothing when the layer is gone.

    >>> renamed("model.layers.7.mlp.up_proj.weight", {7: 2}), renamed("model.layers.6.x", {7: 2})
    ('model.layers.2.mlp.up_proj.weight', None)
    """
    before, found, after = name.partition(".layers.")
    number, dot, rest = after.partition(".")
    if not found or not number.isdecimal():
        return name
    new = place.get(int(number))
    return None if new is None else f"{before}.layers.{new}{dot}{rest}"
