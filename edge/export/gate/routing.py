"""Routers: does the export choose the experts that its source chooses?

Logits can look well while a router errs, as long as experts resemble each other. What is compared are
the choices themselves, for the same tokens at the same place of the same text: those of the source in
PyTorch, and those that the export's own runtime makes with the file that ships (each format says how
they are read out of it).

The rule: of the experts that the source chooses, as large a share must be chosen by the export as top
tokens must stay the same at its bits (`limits.same_top1`). A router's choice is a top-k like the last
layer's, made from the same hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge.export import expert_use, experts
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

POSITIONS = 256

Choices = Mapping[int, "np.ndarray"]  # layer -> experts of each token, (tokens, used)


def source_choices(model: Any, checkpoint: Checkpoint, window: Sequence[int]) -> dict[int, np.ndarray]:
    """What the source's routers choose for each token of a window."""
    import torch

    found: dict[int, np.ndarray] = {}

    def add(layer: int, chosen: Any, _: Any) -> None:
        found[layer] = chosen.reshape(-1, chosen.shape[-1]).numpy()

    with torch.inference_mode(), expert_use.choices(model, checkpoint, add):
        model(torch.tensor([list(window)]), use_cache=False)
    return found


def compare(
    checkpoint: Checkpoint,
    windows: Sequence[Sequence[int]],
    source: Callable[[Sequence[int]], Choices],
    export: Iterable[Choices],
    *,
    method: str,
) -> dict[str, Any]:
    """How alike the choices are, over all layers with experts and all tokens of the windows.

    `overlap` is the share of the source's chosen experts that the export chose as well, `identical` the
    share of decisions with the same set. `method` says how the export's choices were read.
    """
    import numpy as np

    layers = [layer.index for layer in experts.layers(checkpoint)]
    used = experts.used(checkpoint.config)
    shared = np.zeros(len(layers))
    same = np.zeros(len(layers))
    n = 0
    for window, found in zip(windows, export, strict=True):
        wanted = source(window)
        n += len(window)
        for i, layer in enumerate(layers):
            both = (np.asarray(wanted[layer])[:, :, None] == np.asarray(found[layer])[:, None, :]).any(2).sum(1)
            shared[i] += both.sum()
            same[i] += (both == used).sum()
    overlap = shared / max(1, n * used)
    worst = int(overlap.argmin())
    return {
        "method": method,
        "positions": n,
        "decisions": n * len(layers),
        "overlap": float(overlap.mean()),
        "identical": float(same.sum() / max(1, n * len(layers))),
        "by_chance": used / experts.count(checkpoint.config),
        "worst_layer": layers[worst],
        "worst_overlap": float(overlap[worst]),
    }


def judge(found: Mapping[str, Any], least: float) -> list[str]:
    """What is wrong with a comparison; `least` is the overlap that must be reached."""
    if found["overlap"] >= least:
        return []
    return [
        f"routers choose the source's experts in {found['overlap']:.1%} of cases, at least {least:.1%} "
        f"(worst: layer {found['worst_layer']}, {found['worst_overlap']:.1%})"
    ]


def some(windows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The first windows, until there are enough positions."""
    chosen: list[Sequence[int]] = []
    while len(chosen) < len(windows) and sum(map(len, chosen)) < POSITIONS:
        chosen.append(windows[len(chosen)])
    return chosen
