"""Plots as SVG that takes its colours from the page, so that they are right in light, dark and print.

Every label is escaped: names of bundles are other people's text. Each plot has two shapes: names beside their
bars, and, for a phone, above them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Shape:
    """In pixels of the picture: its width, where bars begin and end, the height of a row, and where in it a bar is."""

    width: float
    left: float
    right: float
    row: float
    bar: float
    name_at: float
    letters: int


WIDE = Shape(width=720, left=190, right=570, row=30, bar=0, name_at=20, letters=22)
NARROW = Shape(width=360, left=0, right=350, row=50, bar=18, name_at=16, letters=30)


@dataclass(frozen=True)
class Bar:
    """One row: `value` with its interval, in the colour class of its kind; `text` is what stands beside it."""

    label: str
    kind: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Spread:
    """One row: where samples lie. Least, 5th, 50th, 95th, 99th percentile and largest."""

    label: str
    kind: str
    points: tuple[float, float, float, float, float, float]
    text: str


@dataclass(frozen=True)
class Stack:
    """One row of parts that add up, and a `limit` to hold against them."""

    label: str
    kind: str
    parts: tuple[tuple[str, float], ...]
    limit: float | None
    text: str


def both(plot: Callable[..., Markup], rows: Sequence[Any], title: str, **more: Any) -> Markup:
    """A plot in both shapes, of which the page shows the one that its width has room for."""
    return Markup('<div class="onwide">{}</div><div class="onnarrow">{}</div>').format(
        plot(rows, title, **more), plot(rows, title, shape=NARROW, **more)
    )


def bars(rows: Sequence[Bar], title: str, *, top: float = 0, shape: Shape = WIDE) -> Markup:
    """Horizontal bars from zero, with the 95 % interval as a whisker; `top` is the scale that several plots share."""
    top = max([row.high for row in rows] + [top]) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * shape.row + shape.bar
        width, low, high = (_x(v, top, shape) for v in (row.value, row.low, row.high))
        out.append(_names(row.label, row.text, i, shape) + _rect(shape.left, y + 7, width - shape.left, 16, row.kind))
        if high > low:
            out.append(_line(low, y + 15, high, y + 15, "whisker"))
    return _svg(out, len(rows), title, shape)


def spreads(rows: Sequence[Spread], title: str, *, shape: Shape = WIDE) -> Markup:
    """Thin line: least to largest; bar: 5th to 95th percentile; mark: the median; dot: the 99th percentile."""
    top = max((row.points[-1] for row in rows), default=0) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * shape.row + shape.bar
        least, p5, p50, p95, p99, most = (_x(v, top, shape) for v in row.points)
        out.append(_names(row.label, row.text, i, shape) + _line(least, y + 15, most, y + 15, "range"))
        out.append(_rect(p5, y + 9, max(2.0, p95 - p5), 12, row.kind + " soft"))
        out.append(_rect(p50 - 1.5, y + 6, 3, 18, row.kind))
        out.append(Markup('<circle cx="{:.1f}" cy="{:g}" r="3" class="{}"/>').format(p99, y + 15, row.kind))
    return _svg(out, len(rows), title, shape)


def stacks(rows: Sequence[Stack], title: str, *, shape: Shape = WIDE) -> Markup:
    """Parts side by side, lighter from one to the next; the limit is an upright line."""
    top = max((max(sum(v for _, v in row.parts), row.limit or 0) for row in rows), default=0) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * shape.row + shape.bar
        out.append(_names(row.label, row.text, i, shape))
        total = 0.0
        for step, (words, value) in enumerate(row.parts):
            x, end = _x(total, top, shape), _x(total + value, top, shape)
            tip = Markup("<title>{}</title>").format(words)
            out.append(_rect(x, y + 7, max(0.0, end - x - 1), 16, f"{row.kind} part{step}", tip))
            total += value
        if row.limit:
            out.append(_line(_x(row.limit, top, shape), y + 3, _x(row.limit, top, shape), y + 27, "limit"))
    return _svg(out, len(rows), title, shape)


def short(name: str, letters: int) -> str:
    """A name in so many letters. Its end is kept: there stands what tells bundles of one model apart.

    >>> short("SmolLM2-135M-Instruct gguf q8_0", 22)
    'SmolLM2…ruct gguf q8_0'
    """
    if len(name) <= letters:
        return name
    head = (letters - 1) // 3
    return f"{name[:head]}…{name[head + 1 - letters :]}"


def _x(value: float, top: float, shape: Shape) -> float:
    return shape.left + (shape.right - shape.left) * max(0.0, value) / top


def _svg(parts: Sequence[Markup], n_rows: int, title: str, shape: Shape) -> Markup:
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        shape.width, max(1, n_rows) * shape.row, title, Markup("").join(parts)
    )


def _names(label: str, number: str, i: int, shape: Shape) -> Markup:
    """What a row is called, and its value."""
    y = i * shape.row + shape.name_at
    shown = short(label, shape.letters)
    if shape.left:
        name = Markup('<text x="{:g}" y="{:g}" class="name" text-anchor="end">{}</text>').format(
            shape.left - 12, y, shown
        )
        return name + Markup('<text x="{:g}" y="{:g}" class="number">{}</text>').format(shape.right + 10, y, number)
    name = Markup('<text x="0" y="{:g}" class="name">{}</text>').format(y, shown)
    return name + Markup('<text x="{:g}" y="{:g}" class="number" text-anchor="end">{}</text>').format(
        shape.right, y, number
    )


def _rect(x: float, y: float, width: float, height: float, kind: str, inside: str = "") -> Markup:
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" class="{}">{}</rect>').format(
        x, y, width, height, escape(kind), inside
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)
