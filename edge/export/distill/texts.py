"""Windows of text put together, cut short, and kept apart from those that a student is judged by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from edge.export.calibrate import Calibration

_OVERLAP = 24  # tokens in a row, as in edge.export.calibrate: chat templates repeat, sentences do not


def of_windows(windows: Sequence[tuple[int, ...]], source: str) -> Calibration:
    """These windows as they are, with their hash."""
    digest = hashlib.sha256(json.dumps(windows).encode()).hexdigest()
    return Calibration(tuple(windows), digest, source)


def up_to(windows: Sequence[tuple[int, ...]], n: int) -> tuple[tuple[int, ...], ...]:
    """The first windows that have `n` tokens together: at most one window more than that."""
    found: list[tuple[int, ...]] = []
    total = 0
    for window in windows:
        if total >= n:
            break
        found.append(tuple(window))
        total += len(window)
    return tuple(found)


def without(texts: Calibration, judged: Calibration) -> Calibration:
    """The windows of `texts` that share no run of 24 tokens with the text to judge by.

    >>> told, asked = of_windows([(*range(30),), (*range(50, 80),)], "a"), of_windows([(*range(4, 40),)], "b")
    >>> [window[0] for window in without(told, asked).windows]
    [50]
    """
    seen = {w[i : i + _OVERLAP] for w in bodies(judged) for i in range(len(w) - _OVERLAP + 1)}
    kept = [
        window
        for window, body in zip(texts.windows, bodies(texts), strict=True)
        if not any(body[i : i + _OVERLAP] in seen for i in range(len(body) - _OVERLAP + 1))
    ]
    return of_windows(kept, texts.source)


def bodies(texts: Calibration) -> list[tuple[int, ...]]:
    """The windows without what a chat template puts before each conversation: what a window and its neighbour share."""
    found = []
    for n, window in enumerate(texts.windows):
        other = texts.windows[n - 1] if n else texts.windows[1] if len(texts.windows) > 1 else ()
        start = next((i for i, (a, b) in enumerate(zip(other, window, strict=False)) if a != b), len(other))
        found.append(window[min(start, len(window)) :])
    return found
