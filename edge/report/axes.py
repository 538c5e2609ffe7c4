"""Plots with two axes as SVG: lines over time or as distributions, points with their names, and a ceiling above them.

As in `edge.report.plots`, colours come from the page, every label is escaped, and each plot has two shapes: for a phone
it is as wide as that, with the names of lines beneath them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edge.report.plots import short

_LETTER = 7.3  # the width of one, about
_NAMED = 2  # points that a phone has room to name where they are; more are numbered
_LINE = 17  # between labels that would lie on each other


@dataclass(frozen=True)
class Shape:
    """In pixels of the picture: its size, and what is left around the axes.

    `right` is where lines have their names, `bare` where they have none; `letters` of a name are shown, and about
    `ticks` numbers at each axis.
    """

    width: float
    height: float
    left: float
    right: float
    bare: float
    letters: int
    ticks: int
    top: float = 14
    bottom: float = 46


WIDE = Shape(width=720, height=320, left=58, right=160, bare=70, letters=15, ticks=6)
NARROW = Shape(width=340, height=280, left=52, right=22, bare=22, letters=38, ticks=4)


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
    """`low` and `high` in data; `name` with its unit. With `powers`, data are logarithms of it, of base ten."""

    name: str
    low: float
    high: float
    powers: bool = False


def wide_and_narrow(plot: Callable[..., Markup], *args: Any, **more: Any) -> Markup:
    """`lines` or `points` in both shapes, of which the page shows the one that its width has room for."""
    return Markup('<div class="onwide">{}</div><div class="onnarrow">{}</div>').format(
        plot(*args, **more), plot(*args, shape=NARROW, **more)
    )


def lines(rows: Sequence[Line], x: Axis, y: Axis, title: str, *, steps: bool = False, shape: Shape = WIDE) -> Markup:
    """Lines; with `steps`, each value holds until the next, as in a distribution of samples."""
    place = _Place(x, y, shape, shape.right)
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
    if shape is WIDE:
        return _svg([*out, *_labels_at_the_right(ends, shape)], title, shape.width, shape.height)
    below = shape.height + 4
    names = [_named(4, below + _LINE * (i + 0.7), name, drawn, shape) for i, (_, name, drawn) in enumerate(ends)]
    return _svg([*out, *names], title, shape.width, below + _LINE * len(names))


def points(
    rows: Sequence[Point], x: Axis, y: Axis, title: str, *,
    ceiling: Callable[[float], float] | None = None, ceiling_name: str = "",
    frontier: Sequence[tuple[float, float]] = (), shape: Shape = WIDE,
) -> Markup:  # fmt: skip
    """Points with names; many on a phone have numbers, and their names beneath.

    `ceiling` is what y can be at x at most; `frontier` joins the points that none beats.
    """
    place = _Place(x, y, shape, shape.bare)
    out = [*_frame(x, y, place)]
    note: tuple[float, float] | None = None
    if ceiling is not None:
        inside = [place(v, ceiling(v)) for v in _steps(x.low, x.high, 160) if v > 0 and ceiling(v) <= y.high]
        if inside:
            note = min(inside[0][0] + 14, shape.width - _LETTER * len(ceiling_name)), inside[0][1] - 2
            out += [_path(_joined(inside), "ceiling"), _text(*note, ceiling_name, "note")]
    if len(frontier) > 1:
        out.append(_path(_joined([place(*p) for p in frontier]), "frontier"))
    at = [place(row.x, row.y) for row in rows]
    noted = [_box(*note, "start", ceiling_name)] if note else []
    for row, (px, py) in zip(rows, at, strict=True):
        tip = Markup("<title>{}</title>").format(row.tip)
        out.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="6" class="{}">{}</circle>').format(px, py, row.kind, tip))
    if shape is WIDE or len(rows) <= _NAMED:
        shown = [short(row.name, 32) for row in rows]
        return _svg([*out, *_names(shown, at, noted, shape)], title, shape.width, shape.height)
    out += _names([str(i) for i in range(1, len(rows) + 1)], at, noted, shape)
    for i, row in enumerate(rows):
        down = shape.height + 4 + _LINE * (i + 0.7)
        out.append(_text(4, down, f"{i + 1}", "tick") + _text(29, down, short(row.name, shape.letters), "name"))
    return _svg(out, title, shape.width, shape.height + 4 + _LINE * len(rows))


_Box = tuple[float, float, float, float]  # left, top, right, bottom


def _names(
    names: Sequence[str], at: Sequence[tuple[float, float]], noted: Sequence[_Box], shape: Shape
) -> list[Markup]:
    """Every point's name beside, above or below it, where it hides least; one that is further off has a line to it."""
    out: list[Markup] = []
    taken: list[_Box] = [*noted, *((px - 7, py - 7, px + 7, py + 7) for px, py in at)]
    for name, (px, py) in zip(names, at, strict=True):
        places = (
            (px + 11, py + 5, "start"), (px - 11, py + 5, "end"), (px, py - 12, "middle"), (px, py + 22, "middle"),
            (px + 8, py + 20, "start"), (px - 8, py + 20, "end"), (px + 8, py - 10, "start"), (px - 8, py - 10, "end"),
        )  # fmt: skip
        further = [
            (px + side * 30, py + 5 + up * _LINE * n, anchor)
            for n in (1, 2, 3) for up in (-1, 1) for side, anchor in ((1, "start"), (-1, "end"))
        ]  # fmt: skip
        # On a phone a long name has room in the middle alone.
        middle = [(shape.width / 2, py - 12, "middle"), (shape.width / 2, py + 22, "middle")]

        def hidden(place: tuple[float, float, str], name: str = name) -> float:
            left, top, right, bottom = _box(*place, name)
            aside = max(0.0, right - shape.width) + max(0.0, shape.left - left)
            # Above or below it nothing can be read.
            beyond = max(0.0, -top) + max(0.0, bottom - (shape.height - shape.bottom))
            return (
                aside * 15
                + beyond * 500
                + sum(
                    max(0.0, min(right, x2) - max(left, x1)) * max(0.0, min(bottom, y2) - max(top, y1))
                    for x1, y1, x2, y2 in taken
                )
            )

        best = min((*places, *(further if shape is WIDE else middle)), key=hidden)
        taken.append(_box(*best, name))
        if best in further:
            aside = -3 if best[2] == "start" else 3
            out.append(_straight(px, py, best[0] + aside, best[1] - 5, "grid"))
        out.append(_text(best[0], best[1], name, "name halo", best[2]))
    return out


def _box(x: float, y: float, anchor: str, words: str) -> _Box:
    wide = _LETTER * len(words)
    left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
    return left, y - 12, left + wide, y + 3


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


def ticks_of_powers(low: float, high: float, n: int = 8) -> list[float]:
    """Round numbers, at most `n` of them and fewer if need be, whose logarithms lie between two bounds.

    >>> ticks_of_powers(-2, 0)
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    >>> ticks_of_powers(-6.1, -1.9)
    [1e-06, 1e-05, 0.0001, 0.001, 0.01]
    """
    found = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for step in steps]
        found = [float(f"{value:.0e}") for value in found if low <= math.log10(value) <= high]
        if len(found) <= n:
            break
    return found


class _Place:
    """Data to pixels; y grows upwards in data and downwards in pixels."""

    def __init__(self, x: Axis, y: Axis, shape: Shape, right: float) -> None:
        self._x, self._y, self.shape, self.right = x, y, shape, right

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        shape = self.shape
        wide, high = shape.width - shape.left - self.right, shape.height - shape.top - shape.bottom
        at_x = (x - self._x.low) / ((self._x.high - self._x.low) or 1)
        at_y = (y - self._y.low) / ((self._y.high - self._y.low) or 1)
        return shape.left + wide * at_x, shape.height - shape.bottom - high * min(max(at_y, 0.0), 1.0)


def _frame(x: Axis, y: Axis, place: _Place) -> list[Markup]:
    out = []
    shape = place.shape
    for value, number in _numbers(y):
        left, at = place(x.low, value)
        right, _ = place(x.high, value)
        out.append(_straight(left, at, right, at, "grid"))
        out.append(_text(left - 8, at + 4, number, "tick", "end"))
    for value, number in _numbers(x, shape.ticks):
        at, bottom = place(value, y.low)
        out.append(_straight(at, bottom, at, bottom + 4, "grid"))
        out.append(_text(at, bottom + 18, number, "tick", "middle"))
    middle = (shape.left + shape.width - place.right) / 2
    # On a phone a long name takes all of the width.
    long = _LETTER * len(x.name) > 2 * min(middle, shape.width - middle)
    out.append(_text(shape.width / 2 if long else middle, shape.height - 8, x.name, "tick", "middle"))
    out.append(
        Markup('<text transform="translate(13 {:.0f}) rotate(-90)" class="tick" text-anchor="middle">{}</text>').format(
            (shape.top + shape.height - shape.bottom) / 2, y.name
        )
    )
    return out


def _numbers(axis: Axis, n: int = 6) -> list[tuple[float, str]]:
    """Where numbers stand at an axis, and which."""
    if axis.powers:
        return [(math.log10(value), f"{value:g}") for value in ticks_of_powers(axis.low, axis.high)]
    return [(value, _number(value)) for value in ticks(axis.low, axis.high, n)]


def _labels_at_the_right(ends: Sequence[tuple[float, str, str]], shape: Shape) -> list[Markup]:
    out: list[Markup] = []
    last = -math.inf
    room = shape.height - shape.bottom - _LINE * (len(ends) - 1)
    for y, name, drawn in sorted(ends):
        last = max(min(y + 5, room + _LINE * len(out)), last + _LINE)
        out.append(_named(shape.width - shape.right + 6, last, name, drawn, shape))
    return out


def _named(x: float, y: float, name: str, drawn: str, shape: Shape) -> Markup:
    """A piece of a line, and its name."""
    return _path(f"M{x:g} {y - 4:.1f}h18", drawn) + _text(x + 25, y, short(name, shape.letters), "name")


def _steps(low: float, high: float, n: int) -> list[float]:
    return [low + (high - low) * i / n for i in range(n + 1)]


def _joined(at: Sequence[tuple[float, float]], *, steps: bool = False) -> str:
    said = [f"M{at[0][0]:.1f} {at[0][1]:.1f}"]
    for x, y in at[1:]:
        said.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(said)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"


def _path(d: str, kind: str) -> Markup:
    return Markup('<path d="{}" class="{}"/>').format(d, kind)


def _straight(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, words)


def _svg(parts: Sequence[Markup], title: str, width: float, height: float) -> Markup:
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )
