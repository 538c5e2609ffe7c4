"""Does a model understand a text? One in a language that it does not know shows nothing of how it is used."""

from __future__ import annotations

import math

from edge.export import distance
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.distill import texts
from edge.progress import Progress
from edge.runtimes.tokenizer import Tokenizer

# What a byte of English chat costs, above which the model hardly knows the text. For SmolLM2-135M a story costs 1.6
# times as much in English, a Python program 2.1, the story in German 3.7, in Chinese 3.9, in Finnish 5.0.
_TIMES = 3.0
_TOKENS = 1_500


def cost(checkpoint: Checkpoint, text: Calibration, progress: Progress) -> tuple[float, float]:
    """What the beginning of a text costs: perplexity of its tokens, and nats of each of its bytes."""
    tokenizer = Tokenizer.load(checkpoint.folder)
    windows = texts.up_to([w for w in text.windows if len(w) > 1], _TOKENS)
    total = distance.loss(checkpoint, windows, progress)
    n_bytes = sum(len(tokenizer.decode(w[1:]).encode()) for w in windows)
    return math.exp(total / sum(len(w) - 1 for w in windows)), total / max(1, n_bytes)


def warning(checkpoint: Checkpoint, text: Calibration, found: tuple[float, float], usual: tuple[float, float]) -> str:
    """That a model hardly understands `text`, which costs `found` where English chat costs `usual`; empty if it does.

    Bytes are compared, because tokens of a language that a tokenizer was not made for are pieces of letters, which
    are easily guessed.
    """
    if found[1] <= _TIMES * usual[1]:
        return ""
    return (
        f"{checkpoint.name} hardly understands {text.source}: {found[1]:.2f} nats a byte and a perplexity of "
        f"{found[0]:.0f}, where English chat has {usual[1]:.2f} and {usual[0]:.0f}"
    )
