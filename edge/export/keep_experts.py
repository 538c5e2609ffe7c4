"""Leave out the experts that a text hardly uses, and measure what that costs.

In each layer the experts stay that got the largest share of the routers' weights on the calibration text;
the router's rows and the experts' matrices of the others are left out. What is made is a checkpoint of
its own, in the cache, and the source that its exports are compared with. How far it is from the whole
model is measured on the held-out text and said with every bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError
from edge.export import cache, distance, expert_use, experts, sharded
from edge.export.calibrate import Calibration, activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.experts import Layer
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

_RECORD = "experts_kept.json"


def check(checkpoint: Checkpoint, keep: int, calibration: Calibration | None) -> None:
    """Raise `UsageError` for a number of experts that makes no sense for this checkpoint."""
    if not experts.layers(checkpoint):
        raise UsageError(f"{checkpoint.name} has no experts to choose from: it is a {checkpoint.family}")
    used, n = experts.used(checkpoint.config), experts.count(checkpoint.config)
    if not used <= keep < n:
        raise UsageError(
            f"cannot keep {keep} of the {n} experts of {checkpoint.name}",
            hint=f"each token uses {used}: keep {used} to {n - 1}",
        )
    if calibration is None:
        raise UsageError(
            "which experts matter is measured on calibration text, and there is none",
            hint="leave out --no-calibration",
        )


def choose(use: Mapping[int, np.ndarray], keep: int) -> dict[int, list[int]]:
    """The experts of each layer with the largest share of the routers' weights, in their old order.

    `use` has `(2, experts)` for each layer: tokens, and the sum of the weights they were routed with.
    """
    found = {}
    for layer, (_, weight) in use.items():
        best = sorted(range(len(weight)), key=weight.__getitem__, reverse=True)
        found[layer] = sorted(best[:keep])
    return found


def pruned(
    checkpoint: Checkpoint, keep: int, calibration: Calibration, held_out: Calibration, progress: Progress
) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint with `keep` experts in each layer, and the record of what that costs."""
    from edge.export.sources.folder import open_folder

    key = cache.key(
        checkpoint=checkpoint.id,
        keep=keep,
        text=calibration.sha256,
        judged=held_out.sha256,
        code=cache.code_of(__name__),
    )
    folder = cache.find("checkpoints", key)
    if folder is None:
        statistics = activation_statistics(checkpoint, calibration, progress)
        use = {layer.index: statistics[expert_use.key(layer.index)] for layer in experts.layers(checkpoint)}
        kept = choose(use, keep)
        with cache.building("checkpoints", key) as work:
            progress.start(f"leaving out all but {keep} experts of each layer")
            write(checkpoint, kept, keep, work)
            total = sum(float(u[1].sum()) for u in use.values())
            record = {
                "keep": keep,
                "of": experts.count(checkpoint.config),
                "kept": {str(layer): chosen for layer, chosen in kept.items()},
                "share_of_use": sum(float(use[i][1][chosen].sum()) for i, chosen in kept.items()) / total,
                **_cost(checkpoint, replace(checkpoint, **_opened(open_folder(work))), held_out, progress),
            }
            (work / _RECORD).write_text(json.dumps(record, indent=1))
        folder = cache.root() / "checkpoints" / key
    made = open_folder(folder)
    record = json.loads((folder / _RECORD).read_text())
    digest = hashlib.sha256(json.dumps(record["kept"], sort_keys=True).encode()).hexdigest()
    identity = {**checkpoint.identity, f"experts kept: {keep}": digest}
    name = f"{checkpoint.name}-{keep}-experts"
    return replace(made, name=name, identity=identity, licence=checkpoint.licence), record


def _opened(made: Checkpoint) -> dict[str, Any]:
    return {"folder": made.folder, "config": made.config, "tensors": made.tensors}


def _cost(whole: Checkpoint, part: Checkpoint, held_out: Calibration, progress: Progress) -> dict[str, Any]:
    """How far the pruned model is from the whole one on text that nothing was chosen by."""
    progress.start("measuring what the experts were worth", distance.POSITIONS)
    return distance.between(whole, part, held_out, progress)


def write(checkpoint: Checkpoint, kept: Mapping[int, list[int]], keep: int, work: Path) -> None:
    """The folder of the pruned checkpoint; weights keep their types, one shard in memory at a time."""
    sharded.copy_side_files(checkpoint.folder, work)
    config = dict(checkpoint.config)
    config |= {name: keep for name in ("num_local_experts", "num_experts") if name in config}
    sharded.save(_tensors(checkpoint, kept), config, work)


def _tensors(checkpoint: Checkpoint, kept: Mapping[int, list[int]]) -> Iterator[tuple[str, Any]]:
    """Every tensor that stays, under its new name, as the file has it."""
    from safetensors import safe_open

    moves: dict[str, str | None] = {}
    rows: dict[str, list[int]] = {}
    for layer in experts.layers(checkpoint):
        moves |= _moves(layer, kept[layer.index])
        rows |= dict.fromkeys((layer.router, *(layer.stacked or ())), kept[layer.index])
    for name, info in checkpoint.tensors.items():
        new = moves.get(name, name)
        if new is None:
            continue
        with safe_open(checkpoint.folder / info.file, framework="pt") as file:
            tensor = file.get_tensor(name)
        yield new, tensor[rows[name]] if name in rows else tensor


def _moves(layer: Layer, kept: list[int]) -> dict[str, str | None]:
    """Old name to new name for the experts that stay, to nothing for those that do not."""
    out: dict[str, str | None] = {name: None for expert in layer.experts for name in expert}
    for new, old in enumerate(kept if layer.experts else ()):
        out |= dict(zip(layer.experts[old], layer.experts[new], strict=True))
    return out
