"""How far one checkpoint is from another, both in PyTorch, on text that neither was made with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.gate import logits
from edge.export.reference import load_model
from edge.progress import Progress
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

POSITIONS = 2_000
_WORD_WINDOWS = 40
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


def of_words(source: Checkpoint, other: Checkpoint, held_out: Calibration, progress: Progress) -> dict[str, Any]:
    """What held-out text costs both, as perplexity for each of the source's tokens: `other`, with a vocabulary of its
    own, may need more of them."""
    old, new = Tokenizer.load(source.folder), Tokenizer.load(other.folder)
    windows = [w for w in held_out.windows if len(w) > 1][:_WORD_WINDOWS]
    # Cut between characters: half of one has no text.
    texts = [text for w in windows if "\ufffd" not in (text := old.decode(w))]
    before, after = ([t.encode(text) for text in texts] for t in (old, new))
    n = sum(len(ids) - 1 for ids in before)
    progress.start("reading held-out text with both vocabularies", 2 * len(texts))
    losses = [loss(c, ids, progress) / n for c, ids in ((source, before), (other, after))]
    return {
        "held_out_tokens": n,
        "held_out_tokens_after": sum(len(ids) - 1 for ids in after),
        "perplexity_source": math.exp(losses[0]),
        "perplexity_export": math.exp(losses[1]),
    }


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
