"""Fewer experts in each layer: those stay that the routers' weights go to most.

    [student.experts]
    keep = 2

As `edge export --experts keep=2` chooses them; here what is left can learn what the others knew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export import expert_use, experts, keep_experts
from edge.export.calibrate import activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.progress import Progress

LEARNS = True


@dataclass(frozen=True)
class Options:
    """`keep` is how many experts of each layer stay."""

    keep: int


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the checkpoint of fewer experts. Raises `UsageError` for a number that makes no sense."""
    keep_experts.check(checkpoint, options.keep, given.sample)
    statistics = activation_statistics(checkpoint, given.sample, progress)
    use = {layer.index: statistics[expert_use.key(layer.index)] for layer in experts.layers(checkpoint)}
    kept = keep_experts.choose(use, options.keep)
    progress.start(f"leaving out all but {options.keep} experts of each layer")
    keep_experts.write(checkpoint, kept, options.keep, folder)
    return {
        "keep": options.keep,
        "of": experts.count(checkpoint.config),
        "experts": {str(layer): chosen for layer, chosen in kept.items()},
    }
