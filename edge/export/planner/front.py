"""What can be had, from what each matrix may cost: mixtures, their front, and the choice from it. Nothing but numbers.

Damages of matrices add up (errors of rounding are small and do not know of each other), and so do bytes. The best
mixtures are then those of a knapsack, and along its upper hull they are found one step at a time: from everything at
its smallest, the step that saves most damage per byte comes next (Everett 1963: a Lagrange multiplier that falls).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge.export.planner.budget import Budget, missed

_LARGE = 0.1  # of all weights


@dataclass(frozen=True, order=True)
class Option:
    """One way to store a matrix: `type` in the format's words, its bytes, and the damage (nats of KLD, unscaled)."""

    type: str
    n_bytes: int
    damage: float


@dataclass(frozen=True)
class Part:
    """What is stored one way: a matrix, or several that must be alike.

    `read` is the share of it that a token reads.
    """

    name: str
    n_elements: int
    options: tuple[Option, ...]
    read: float = 1.0

    def option(self, type: str) -> Option:
        """The one of this type."""
        return next(o for o in self.options if o.type == type)


@dataclass(frozen=True)
class Mix:
    """An option for each part, in the order of the parts."""

    name: str
    chosen: tuple[Option, ...]

    @property
    def n_bytes(self) -> int:
        return sum(o.n_bytes for o in self.chosen)

    @property
    def damage(self) -> float:
        return math.fsum(o.damage for o in self.chosen)


@dataclass(frozen=True)
class Candidate:
    """A mixture of one format with all that is expected of it; `None` is not known.

    `agreement` is the share of positions whose top token stays, `speed` tokens a second (low, expected, high), and
    `notes` say what they rest on.
    """

    format: str
    mix: Mix
    size_bytes: int
    memory_bytes: int
    kld: float
    agreement: float
    speed: tuple[float, float, float] | None = None
    against: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.format} {self.mix.name}"

    def has(self) -> dict[str, float | None]:
        """What a budget bounds, under the names of its bounds."""
        return {
            "max_size_bytes": self.size_bytes,
            "max_memory_bytes": self.memory_bytes,
            "min_tokens_per_s": self.speed[1] if self.speed else None,
            "min_agreement": self.agreement,
        }


@dataclass(frozen=True)
class Law:
    """`y = factor * x ** exponent`, through what was measured at one or two places."""

    factor: float
    exponent: float

    def __call__(self, x: float) -> float:
        return self.factor * x**self.exponent if x > 0 else 0.0

    def inverse(self, y: float) -> float:
        """The `x` of which this `y` comes."""
        return float((y / self.factor) ** (1 / self.exponent)) if y > 0 else 0.0


def law(points: Sequence[tuple[float, float]], *, exponent: float) -> Law:
    """The power law through two points; through one, or two that say nothing, that of the expected `exponent`.

    What two places say is believed up to half of the expected exponent more or less.
    """
    good = [(x, y) for x, y in points if x > 0 and y > 0]
    if not good:
        return Law(1.0, exponent)
    (x1, y1), (x2, y2) = good[0], good[-1]
    slope = math.log(y2 / y1) / math.log(x2 / x1) if x1 != x2 else exponent
    slope = min(max(slope, 0.5 * exponent), 1.5 * exponent)
    middle_x, middle_y = (math.log(x1) + math.log(x2)) / 2, (math.log(y1) + math.log(y2)) / 2
    return Law(math.exp(middle_y - slope * middle_x), slope)


def hull(options: Iterable[Option]) -> tuple[Option, ...]:
    """The options that some price of a byte makes best, smallest first: each larger one saves less damage per byte."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.n_bytes, o.damage, o.type)):
        if kept and option.damage >= kept[-1].damage:
            continue
        while len(kept) > 1 and _saving(kept[-2], kept[-1]) <= _saving(kept[-1], option):
            kept.pop()
        kept.append(option)
    return tuple(kept)


def _saving(small: Option, large: Option) -> float:
    return (small.damage - large.damage) / (large.n_bytes - small.n_bytes)


def mixes(parts: Sequence[Part]) -> list[Mix]:
    """Good mixtures from the smallest to the most exact: each has more bytes than the one before it, and errs less.

    One step of a large part (an embedding) may be a tenth of the file. So that a budget between two steps is not left
    unused, there are also the mixtures in which such a part stops at each of its rungs, and the others go on.
    """
    ladders = [hull(part.options) for part in parts]
    total = sum(part.n_elements for part in parts)
    found = path(ladders)
    for i, part in enumerate(parts):
        if part.n_elements >= _LARGE * total:
            for stop in range(1, len(ladders[i])):
                found += path([*ladders[:i], ladders[i][:stop], *ladders[i + 1 :]])
    kept: list[tuple[Option, ...]] = []
    least = math.inf
    for _, damage, chosen in sorted((sum(o.n_bytes for o in c), math.fsum(o.damage for o in c), c) for c in found):
        if damage < least:
            least = damage
            kept.append(chosen)
    return [Mix(f"mixed-{n}", options) for n, options in enumerate(kept)]


def path(ladders: Sequence[tuple[Option, ...]]) -> list[tuple[Option, ...]]:
    """The options of every part, step by step up their `ladders`, the step that saves most damage per byte first.

    No mixture of as many bytes errs less than one that stands here.
    """
    at = [0] * len(ladders)
    chosen = [ladder[0] for ladder in ladders]
    out = [tuple(chosen)]
    waiting = [(-_saving(ladder[0], ladder[1]), i) for i, ladder in enumerate(ladders) if len(ladder) > 1]
    heapq.heapify(waiting)
    while waiting:
        _, i = heapq.heappop(waiting)
        at[i] += 1
        chosen[i] = ladders[i][at[i]]
        out.append(tuple(chosen))
        if at[i] + 1 < len(ladders[i]):
            heapq.heappush(waiting, (-_saving(ladders[i][at[i]], ladders[i][at[i] + 1]), i))
    return out


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other beats in size, memory, speed and error at once, smallest first."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=_order):
        # Whoever could beat it has no more bytes, so it came before; of two that are alike the first stays.
        if not any(_beats(other, one) for other in kept):
            kept.append(one)
    return kept


def _order(c: Candidate) -> tuple[Any, ...]:
    return (c.size_bytes, c.kld, c.memory_bytes, -_speed(c), c.format, c.mix.name)


def _speed(c: Candidate) -> float:
    return c.speed[1] if c.speed else 0.0


def _beats(a: Candidate, b: Candidate) -> bool:
    return (
        a.size_bytes <= b.size_bytes and a.memory_bytes <= b.memory_bytes and a.kld <= b.kld and _speed(a) >= _speed(b)
    )


def choose(candidates: Sequence[Candidate], budget: Budget) -> Candidate | None:
    """The one that errs least of those within the budget, or, where nothing but agreement is asked for, the smallest.

    `None` when none is within. The same candidates and budget give the same choice, whatever their order.
    """
    within = [c for c in candidates if not c.against and not missed(budget, c.has())]
    if budget.record().keys() == {"min_agreement"}:
        return min(within, key=_order, default=None)
    return min(within, key=lambda c: (c.kld, *_order(c)), default=None)


def nearest(candidates: Sequence[Candidate], budget: Budget) -> Candidate:
    """The one that misses the budget least: its worst bound is missed by the smallest part."""

    def distance(c: Candidate) -> tuple[Any, ...]:
        by = missed(budget, c.has())
        return (len(c.against), max(by.values(), default=0.0), sum(by.values()), c.kld, *_order(c))

    return min(candidates, key=distance)


def corrected(candidates: Iterable[Candidate], by: Mapping[str, Callable[[Candidate], Candidate]]) -> list[Candidate]:
    """The candidates with what building one of their format has taught."""
    return [by[c.format](c) if c.format in by else c for c in candidates]


def lesson(
    expected: Candidate, size_bytes: int, kld: float | None, agreement: float | None
) -> Callable[[Candidate], Candidate]:
    """What was measured of one that was built, as ratios to what was `expected`, to be laid on its neighbours."""
    bytes_by = size_bytes / expected.size_bytes
    kld_by = kld / expected.kld if kld and expected.kld > 0 else 1.0
    lost_by = (1 - agreement) / (1 - expected.agreement) if agreement is not None and expected.agreement < 1 else 1.0

    def apply(c: Candidate) -> Candidate:
        return replace(
            c,
            size_bytes=round(c.size_bytes * bytes_by),
            kld=c.kld * kld_by,
            agreement=max(0.0, 1 - (1 - c.agreement) * lost_by),
        )

    return apply
