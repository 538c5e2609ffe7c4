"""Logits of the export against its source's, position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

NEAR_TIE_NATS = 0.1  # the source itself hardly prefers its first choice to its second
_BOOTSTRAP = 1000

Logits = Callable[[Sequence[int]], "np.ndarray"]


@dataclass(frozen=True)
class Comparison:
    """What was measured; shares are between 0 and 1, divergences in nats.

    `kld_low` and `kld_high` bound the mean KLD with 95 % confidence, by resampling whole
    windows, because positions of one text depend on each other. `near_ties` is the share of
    positions that changed their top token where the source's own margin was below 0.1 nats.
    """

    positions: int
    nmse: float
    mean_kld: float
    kld_low: float
    kld_high: float
    p99_kld: float
    max_kld: float
    same_top1: float
    near_ties: float
    perplexity_source: float
    perplexity_export: float
    flat: bool
    finite: bool


def compare(
    source: Logits,
    export: Logits,
    windows: Sequence[Sequence[int]],
    *,
    vocab_size: int,
    at_least: int,
    advance: Callable[[float], None] = lambda done: None,
) -> Comparison:
    """Feed the same windows to both and compare every position's distribution.

    `source` and `export` give float32 `(n, vocab)` for n tokens. Windows are taken until
    `at_least` positions are compared; a beginning that many windows share counts once.
    Padding columns beyond `vocab_size` are left out, and so are positions whose id is below zero:
    a picture's rows, which are no words.
    """
    import numpy as np

    klds: list[np.ndarray] = []
    same: list[np.ndarray] = []
    near: list[np.ndarray] = []
    losses = np.zeros(2)
    n_losses = error = energy = 0.0
    flat, finite, done = True, True, 0
    for window, start in _with_new_part(windows):
        if done >= at_least:
            break
        a = np.asarray(source(window), np.float32)[start:, :vocab_size]
        b = np.asarray(export(window), np.float32)[start:, :vocab_size]
        finite = finite and bool(np.isfinite(b).all())
        if not finite:
            break
        flat = flat and bool((b.max(axis=1) == b.min(axis=1)).all())
        ids = np.asarray(window)
        words = ids[start:] >= 0
        a, b, following = a[words], b[words], np.append(ids[start + 1 :], -1)[words]
        if not len(a):
            continue
        kld, top, tie, loss = _positions(a, b, following)
        error += float(np.square(a - b, dtype=np.float64).sum())
        energy += float(np.square(a, dtype=np.float64).sum())
        klds.append(kld)
        same.append(top)
        near.append(tie)
        losses += loss
        n_losses += int((following >= 0).sum())
        done += len(kld)
        advance(done)
    if not finite or not klds:
        nan = float("nan")
        return Comparison(done, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, flat=False, finite=False)
    every = np.concatenate(klds)
    low, high = _confidence(klds)
    return Comparison(
        positions=done,
        nmse=error / max(energy, 1e-30),
        mean_kld=float(every.mean()),
        kld_low=low,
        kld_high=high,
        p99_kld=float(np.quantile(every, 0.99)),
        max_kld=float(every.max()),
        same_top1=float(np.concatenate(same).mean()),
        near_ties=float(np.concatenate(near).mean()),
        perplexity_source=float(np.exp(losses[0] / n_losses)),
        perplexity_export=float(np.exp(losses[1] / n_losses)),
        flat=flat,
        finite=True,
    )


def _with_new_part(windows: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], int]]:
    """Each window with where it begins to differ from the one before it."""
    before: Sequence[int] = ()
    for window in windows:
        pairs = zip(before, window, strict=False)
        start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(window)))
        if len(window) - start >= 2:
            yield window, start
        before = window


def _positions(a: np.ndarray, b: np.ndarray, following: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """KLD, same top token, changed in a near tie, and the summed loss of both on what follows."""
    import numpy as np

    kld, same, near = (np.empty(len(a)) for _ in range(3))
    losses = np.zeros(2)
    # A few rows at a time: float64 copies of a whole window would double the memory.
    for i in range(0, len(a), 32):
        p, q = log_softmax(a[i : i + 32]), log_softmax(b[i : i + 32])
        rows = np.arange(len(p))
        kld[i : i + 32] = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
        first, chosen = p.argmax(axis=1), q.argmax(axis=1)
        margin = p[rows, first] - np.partition(p, -2, axis=1)[:, -2]
        same[i : i + 32] = first == chosen
        near[i : i + 32] = (first != chosen) & (margin < NEAR_TIE_NATS)
        targets = following[i : i + 32]
        k = np.flatnonzero(targets >= 0)
        losses -= (p[k, targets[k]].sum(), q[k, targets[k]].sum())
    return kld, same, near, losses


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Of each row `(n, vocab)`, in float64."""
    import numpy as np

    x = x.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def _confidence(klds: Sequence[np.ndarray]) -> tuple[float, float]:
    """95 % of the means of resampled windows lie between these."""
    import numpy as np

    rng = np.random.default_rng(0)
    sums = np.array([k.sum() for k in klds])
    counts = np.array([len(k) for k in klds])
    chosen = rng.integers(0, len(klds), (_BOOTSTRAP, len(klds)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))
