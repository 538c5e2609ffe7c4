"""How far one checkpoint is from another, both in PyTorch, on text that neither was made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.gate import logits
from edge.export.reference import load_model
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

POSITIONS = 2_000
_KEPT = ("positions", "mean_kld", "kld_low", "kld_high", "same_top1", "perplexity_source", "perplexity_export")


def between(
    source: Checkpoint, other: Checkpoint, held_out: Calibration, progress: Progress, *, positions: int = POSITIONS
) -> dict[str, Any]:
    """Mean KLD of `other` to `source` in nats, with its confidence, the share of equal top tokens, both perplexities.

    Both have the same vocabulary.
    """
    found = logits.compare(
        run(source),
        run(other),
        held_out.windows,
        vocab_size=int(source.text_config["vocab_size"]),
        at_least=positions,
        advance=progress.advance,
    )
    return {name: getattr(found, name) for name in _KEPT}


def run(checkpoint: Checkpoint) -> logits.Logits:
    """Its logits, float32 `(tokens, vocab)`."""
    import torch

    model = load_model(checkpoint)

    def logits_of(window: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            out: np.ndarray = model(torch.tensor([list(window)]), use_cache=False).logits[0].numpy()
        return out

    return logits_of


def loss(checkpoint: Checkpoint, windows: Sequence[Sequence[int]], progress: Progress) -> float:
    """The summed loss in nats of all tokens but the first of each window."""
    import torch

    model = load_model(checkpoint)
    total = 0.0
    with torch.inference_mode():
        for n, window in enumerate(windows, 1):
            ids = torch.tensor([list(window)])
            out = model(ids, use_cache=False).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(out, ids[0, 1:], reduction="sum"))
            progress.advance(n)
    return total
