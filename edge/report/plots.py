"""Plots as SVG that takes its colours from the page, so that they are right in light, dark and print.

Every label is escaped: names of bundles are other people's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _LABEL, _NUMBER, _ROW = 720, 190, 150, 30


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


def bars(rows: Sequence[Bar], title: str, *, top: float = 0) -> Markup:
    """Horizontal bars from zero, with the 95 % interval as a whisker; `top` is the scale that several plots share."""
    top = max([row.high for row in rows] + [top]) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * _ROW
        width, low, high = (_x(v, top) for v in (row.value, row.low, row.high))
        out.append(_label(row.label, y) + _rect(_LABEL, y + 7, width - _LABEL, 16, row.kind))
        if high > low:
            out.append(_line(low, y + 15, high, y + 15, "whisker"))
        out.append(_number(row.text, y))
    return _svg(out, len(rows), title)


def spreads(rows: Sequence[Spread], title: str) -> Markup:
    """Thin line: least to largest; bar: 5th to 95th percentile; mark: the median; dot: the 99th percentile."""
    top = max((row.points[-1] for row in rows), default=0) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * _ROW
        least, p5, p50, p95, p99, most = (_x(v, top) for v in row.points)
        out.append(_label(row.label, y) + _line(least, y + 15, most, y + 15, "range"))
        out.append(_rect(p5, y + 9, max(2.0, p95 - p5), 12, row.kind + " soft"))
        out.append(_rect(p50 - 1.5, y + 6, 3, 18, row.kind))
        out.append(Markup('<circle cx="{:.1f}" cy="{}" r="3" class="{}"/>').format(p99, y + 15, row.kind))
        out.append(_number(row.text, y))
    return _svg(out, len(rows), title)


def stacks(rows: Sequence[Stack], title: str) -> Markup:
    """Parts side by side, lighter from one to the next; the limit is an upright line."""
    top = max((max(sum(v for _, v in row.parts), row.limit or 0) for row in rows), default=0) or 1
    out = []
    for i, row in enumerate(rows):
        y = i * _ROW
        out.append(_label(row.label, y))
        total = 0.0
        for step, (words, value) in enumerate(row.parts):
            x, end = _x(total, top), _x(total + value, top)
            tip = Markup("<title>{}</title>").format(words)
            out.append(_rect(x, y + 7, max(0.0, end - x - 1), 16, f"{row.kind} part{step}", tip))
            total += value
        if row.limit:
            out.append(_line(_x(row.limit, top), y + 3, _x(row.limit, top), y + 27, "limit"))
        out.append(_number(row.text, y))
    return _svg(out, len(rows), title)


def _x(value: float, top: float) -> float:
    return _LABEL + (_WIDTH - _LABEL - _NUMBER) * max(0.0, value) / top


def _svg(parts: Sequence[Markup], n_rows: int, title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, max(1, n_rows) * _ROW, title, Markup("").join(parts)
    )


def _label(words: str, y: float) -> Markup:
    short = words if len(words) <= 22 else words[:21] + "…"
    return Markup('<text x="{}" y="{}" class="name" text-anchor="end">{}</text>').format(_LABEL - 12, y + 20, short)


def _number(words: str, y: float) -> Markup:
    return Markup('<text x="{}" y="{}" class="number">{}</text>').format(_WIDTH - _NUMBER + 10, y + 20, words)


def _rect(x: float, y: float, width: float, height: float, kind: str, inside: str = "") -> Markup:
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" class="{}">{}</rect>').format(
        x, y, width, height, escape(kind), inside
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)
