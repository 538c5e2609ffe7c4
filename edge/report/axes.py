"""Plots with two axes as SVG: lines over time or as distributions, points with their names, and a ceiling above them.

As in `edge.report.plots`, colours come from the page and every label is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 160, 14, 46
_NARROW = 70  # at the right, where no names stand
_LETTER = 7.3  # the width of one, about
_LINE = 17  # between labels that would lie on each other


@dataclass(frozen=True)
class Line:
    """Points `(x, y)` joined in their order, in the colour of `kind`; `name` stands at its end."""

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Point:
    """`tip` is what a mouse that rests on it shows."""

    name: str
    kind: str
    x: float
    y: float
    tip: str


@dataclass(frozen=True)
class Axis:
    """`low` and `high` in data; `name` with its unit."""

    name: str
    low: float
    high: float


def lines(rows: Sequence[Line], x: Axis, y: Axis, title: str, *, steps: bool = False) -> Markup:
    """Lines; with `steps`, each value holds until the next, as in a distribution of samples."""
    place = _Place(x, y)
    out = [*_frame(x, y, place)]
    ends: list[tuple[float, str, str]] = []  # where each ends, its name, how it is drawn
    seen: dict[str, int] = {}
    for row in rows:
        inside = [(px, py) for px, py in row.points if px <= x.high] or list(row.points[:1])
        if not inside:
            continue
        # A second line of one colour is dashed.
        dash = seen[row.kind] = seen.get(row.kind, -1) + 1
        drawn = f"curve {row.kind} dash{dash % 4}"
        out.append(_path(_joined([place(*p) for p in inside], steps=steps), drawn))
        ends.append((place(*inside[-1])[1], row.name, drawn))
    out += _labels_at_the_right(ends)
    return _svg(out, title)


def points(
    rows: Sequence[Point], x: Axis, y: Axis, title: str, *,
    ceiling: Callable[[float], float] | None = None, ceiling_name: str = "",
    frontier: Sequence[tuple[float, float]] = (),
) -> Markup:  # fmt: skip
    """Points with names. `ceiling` is what y can be at x at most; `frontier` joins the points that none beats."""
    place = _Place(x, y, right=_NARROW)
    out = [*_frame(x, y, place)]
    if ceiling is not None:
        inside = [place(v, ceiling(v)) for v in _steps(x.low, x.high, 160) if v > 0 and ceiling(v) <= y.high]
        if inside:
            out.append(_path(_joined(inside), "ceiling"))
            out.append(_text(inside[0][0] + 14, inside[0][1] + 8, ceiling_name, "note"))
    if len(frontier) > 1:
        out.append(_path(_joined([place(*p) for p in frontier]), "frontier"))
    at = [place(row.x, row.y) for row in rows]
    for row, (px, py) in zip(rows, at, strict=True):
        tip = Markup("<title>{}</title>").format(row.tip)
        out.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="6" class="{}">{}</circle>').format(px, py, row.kind, tip))
    return _svg([*out, *_names(rows, at)], title)


def _names(rows: Sequence[Point], at: Sequence[tuple[float, float]]) -> list[Markup]:
    """Every point's name to its right, its left, above or below it: where it hides least."""
    out = []
    taken = [(px - 7, py - 7, px + 7, py + 7) for px, py in at]
    for row, (px, py) in zip(rows, at, strict=True):
        name = _short(row.name, 32)
        wide = _LETTER * len(name)
        places = (
            (px + 11, py + 5, "start"), (px - 11, py + 5, "end"), (px, py - 12, "middle"), (px, py + 22, "middle"),
            (px + 8, py + 20, "start"), (px - 8, py + 20, "end"), (px + 8, py - 10, "start"), (px - 8, py - 10, "end"),
        )  # fmt: skip

        def box(place: tuple[float, float, str], wide: float = wide) -> tuple[float, float, float, float]:
            left = place[0] - {"start": 0.0, "middle": wide / 2, "end": wide}[place[2]]
            return left, place[1] - 12, left + wide, place[1] + 3

        def hidden(place: tuple[float, float, str]) -> float:
            low_x, low_y, high_x, high_y = box(place)
            outside = max(0.0, high_x - _WIDTH) + max(0.0, _LEFT - low_x)
            return outside * 15 + sum(
                max(0.0, min(high_x, x2) - max(low_x, x1)) * max(0.0, min(high_y, y2) - max(low_y, y1))
                for x1, y1, x2, y2 in taken
            )

        best = min(places, key=hidden)
        taken.append(box(best))
        out.append(_text(best[0], best[1], name, "name halo", best[2]))
    return out


def about(values: Sequence[float], *, from_zero: bool = False, room: float = 0.08) -> tuple[float, float]:
    """Bounds of an axis for these values, a little wider than they are.

    >>> about([10.0, 20.0], room=0.1)
    (9.0, 21.0)
    >>> about([], from_zero=True)
    (0.0, 1.0)
    """
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    wide = (high - low) or abs(high) or 1.0
    return (0.0 if from_zero else low - room * wide), high + room * wide


def ticks(low: float, high: float, n: int = 6) -> list[float]:
    """Round numbers between two bounds, about `n` of them.

    >>> ticks(0, 103)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    rough = (high - low) / n if high > low else 1.0
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * m for m in (1, 2, 5, 10) if scale * m >= rough * 0.99)
    first = math.ceil(low / step - 1e-9)
    return [round(float(i * step), 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Place:
    """Data to pixels; y grows upwards in data and downwards in pixels."""

    def __init__(self, x: Axis, y: Axis, *, right: float = _RIGHT) -> None:
        self._x, self._y, self.right = x, y, right

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        wide, high = _WIDTH - _LEFT - self.right, _HEIGHT - _TOP - _BOTTOM
        at_x = (x - self._x.low) / ((self._x.high - self._x.low) or 1)
        at_y = (y - self._y.low) / ((self._y.high - self._y.low) or 1)
        return _LEFT + wide * at_x, _HEIGHT - _BOTTOM - high * min(max(at_y, 0.0), 1.0)


def _frame(x: Axis, y: Axis, place: _Place) -> list[Markup]:
    out = []
    for value in ticks(y.low, y.high):
        left, at = place(x.low, value)
        right, _ = place(x.high, value)
        out.append(_straight(left, at, right, at, "grid"))
        out.append(_text(left - 8, at + 4, _number(value), "tick", "end"))
    for value in ticks(x.low, x.high):
        at, bottom = place(value, y.low)
        out.append(_straight(at, bottom, at, bottom + 4, "grid"))
        out.append(_text(at, bottom + 18, _number(value), "tick", "middle"))
    middle = (_LEFT + _WIDTH - place.right) / 2
    out.append(_text(middle, _HEIGHT - 8, x.name, "tick", "middle"))
    out.append(
        Markup('<text transform="translate(13 {:.0f}) rotate(-90)" class="tick" text-anchor="middle">{}</text>').format(
            (_TOP + _HEIGHT - _BOTTOM) / 2, y.name
        )
    )
    return out


def _labels_at_the_right(ends: Sequence[tuple[float, str, str]]) -> list[Markup]:
    out: list[Markup] = []
    last = -math.inf
    room = _HEIGHT - _BOTTOM - _LINE * (len(ends) - 1)
    for y, name, drawn in sorted(ends):
        at = max(min(y + 5, room + _LINE * len(out)), last + _LINE)
        last = at
        left = _WIDTH - _RIGHT + 6
        sample = _path(f"M{left} {at - 4:.1f}h18", drawn)
        out.append(sample + _text(left + 25, at, _short(name, 15), "name"))
    return out


def _steps(low: float, high: float, n: int) -> list[float]:
    return [low + (high - low) * i / n for i in range(n + 1)]


def _joined(at: Sequence[tuple[float, float]], *, steps: bool = False) -> str:
    said = [f"M{at[0][0]:.1f} {at[0][1]:.1f}"]
    for x, y in at[1:]:
        said.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(said)


def _short(name: str, n: int) -> str:
    return name if len(name) <= n else name[: n - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def _path(d: str, kind: str) -> Markup:
    return Markup('<path d="{}" class="{}"/>').format(d, kind)


def _straight(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, words)


def _svg(parts: Sequence[Markup], title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, title, Markup("").join(parts)
    )
