"""Conditions that a comparison must not meet, as CI states them: `decode<0.95`, `inter_token.p99>1.1`."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import UsageError
from edge.measurement import Measurement

_FORM = re.compile(r"\s*([a-z]\w*)(?:\.p(\d{1,2}(?:\.\d+)?))?\s*(<|>)\s*(\d+(?:\.\d+)?)\s*(%?)\s*")
_RESAMPLES = 500


@dataclass(frozen=True)
class Limit:
    """The second run's `name` (its median, or a percentile) over the first's must not be `below` or above `bound`."""

    text: str
    name: str
    percentile: float
    below: bool
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether it came to what must not be."""
        return ratio < self.bound if self.below else ratio > self.bound


def parse(text: str) -> list[Limit]:
    """Conditions from text, several with commas between them. Raises `UsageError` for what is none.

    >>> [(c.name, c.percentile, c.below, c.bound) for c in parse("decode<0.95, inter_token.p99 > 110%")]
    [('decode', 50.0, True, 0.95), ('inter_token', 99.0, False, 1.1)]
    """
    found = []
    for part in text.split(","):
        match = _FORM.fullmatch(part)
        if not match:
            raise UsageError(
                f"{part.strip()!r} is no condition",
                hint="write what must not be, as a ratio of the second run to the first: "
                "decode<0.95, peak_rss>1.1, inter_token.p99>1.2",
            )
        name, percentile, sign, number, percent = match.groups()
        bound = float(number) / (100 if percent else 1)
        found.append(Limit(part.strip(), name, float(percentile or 50), sign == "<", bound))
    return found


def ratio(a: Measurement, b: Measurement, percentile: float) -> tuple[float, float, float]:
    """A percentile of `b` over that of `a`, and its bounds with 95 % confidence, by drawing repetitions of both."""
    rng = random.Random(0)

    def again(parts: Sequence[tuple[float, ...]]) -> float:
        drawn = tuple(x for part in rng.choices(parts, k=len(parts)) for x in part)
        return Measurement("", "", drawn).percentile(percentile)

    least = 1e-12
    ours, theirs = a.repetitions(), b.repetitions()
    drawn = sorted(again(theirs) / max(again(ours), least) for _ in range(_RESAMPLES))
    found = b.percentile(percentile) / max(a.percentile(percentile), least)
    return found, drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1]
