"""A profile as a page: bars of operators, layers as stacked columns, memory over time."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge.report.axes import Axis, Line, about, lines, wide_and_narrow
from edge.report.plots import Bar, bars, both
from edge.time_spent import Phase

_COLOURS = 7  # classes op0 to op6 of the style; what is rarer shares the last
_LOOK_S = 0.02  # between two looks at memory: what is drawn of one phase meets what is drawn of the next
_WORDS = {"prefill": "Reading", "decode": "Answering"}


def render(found: Mapping[str, Any], parts: Sequence[Phase], name: str) -> str:
    """The page as HTML text, whole in itself."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text: str = environment.get_template("profile.html.jinja").render(
        title=name,
        phases=[_phase(part) for part in parts],
        memory=_memory(found),
        facts=[
            ("counted by", found["recording"]["instrument"]),
            ("threads", str(found["threads"])),
            ("context", f"{found['context_length']} tokens"),
            *([("device", str(found["device"]["model"]))] if found["device"].get("model") else []),
            ("processor", str(found["device"].get("cpu"))),
            *([("emulated", "speeds say nothing about a real device")] if found.get("emulated") else []),
            *((key, value) for key, value in sorted(found["runtime"].items())),
            ("command", shlex.join(found["command"])),
        ],
        by_order=found["recording"]["layers_by_order"],
    )
    return text


def _phase(part: Phase) -> dict[str, Any]:
    colours = {share.operator: min(i, _COLOURS - 1) for i, share in enumerate(part.operators)}
    shown = part.operators[:10]
    rest = part.operators[10:]
    rows = [
        Bar(s.operator, f"op{colours[s.operator]}", s.us, s.us, s.us, f"{s.us:,.0f} µs  {100 * s.share:.1f} %")
        for s in shown
    ]
    if rest:
        us, share = sum(s.us for s in rest), sum(s.share for s in rest)
        rows.append(Bar(f"{len(rest)} others", "op6", us, us, us, f"{us:,.0f} µs  {100 * share:.1f} %"))
    return {
        "name": _WORDS[part.name],
        "tokens": part.tokens,
        "us": f"{part.us:,.0f}",
        "plain": f"{part.plain_us:,.0f}",
        "operators": f"{part.operators_us:,.0f}",
        "overhead": f"{100 * part.overhead:+.0f} %",
        "bars": both(bars, rows, f"{_WORDS[part.name]}: microseconds for each token"),
        "layers": Markup('<div class="onwide">{}</div><div class="onnarrow">{}</div>').format(
            _columns(part, colours, 720.0), _columns(part, colours, 340.0)
        )
        if len(part.layers) > 1
        else None,
        "key": [
            (f"op{i}", "others" if i == _COLOURS - 1 else share.operator)
            for i, share in enumerate(part.operators[:_COLOURS])
        ],
    }


def _columns(part: Phase, colours: Mapping[str, int], wide: float) -> Markup:
    """A column for each layer, its operators one above the other."""
    most = max(sum(spent.values()) for spent in part.layers.values()) or 1.0
    high, left, bottom = 200.0, 7.3 * len(f"{most:,.0f} µs"), 24.0
    each = (wide - left) / len(part.layers)
    out = [
        Markup('<text x="0" y="12" class="tick">{} µs</text>').format(f"{most:,.0f}"),
        Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="grid"/>').format(left, high, wide, high),
    ]
    every = 2 * math.ceil(10 / each)  # layers of which one is named, so that names do not touch
    for i, (layer, spent) in enumerate(part.layers.items()):
        y = high
        x = left + i * each
        for operator, us in sorted(spent.items(), key=lambda row: colours[row[0]]):
            tall = (high - 4) * us / most
            y -= tall
            out.append(
                Markup(
                    '<rect x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}" class="op{}"><title>{}</title></rect>'
                ).format(
                    x + 1,
                    y,
                    max(1.0, each - min(2.0, each / 4)),
                    tall,
                    colours[operator],
                    f"layer {layer}: {operator} {us:,.1f} µs",
                )
            )
        if layer % every == 0:
            out.append(
                Markup('<text x="{:.1f}" y="{}" class="tick" text-anchor="middle">{}</text>').format(
                    x + each / 2, high + 16, layer
                )
            )
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="layers">{}</svg>').format(
        wide, high + bottom, Markup("").join(out)
    )


def _memory(found: Mapping[str, Any]) -> Markup:
    points = [(float(at), size / 1e6) for at, size in found["memory"]]
    marks = found["marks"]
    _, high = about([size for _, size in points], from_zero=True)
    kinds = (("loading", "load", "prefill"), ("reading", "prefill", "decode"), ("answering", "decode", "end"))
    rows = []
    for i, (name, start, end) in enumerate(kinds):
        inside = tuple(p for p in points if marks[start] - _LOOK_S <= p[0] <= marks[end] + _LOOK_S)
        if inside:
            rows.append(Line(name, f"op{i}", inside))
    return wide_and_narrow(
        lines, rows, Axis("seconds", 0.0, points[-1][0]), Axis("megabytes resident", 0.0, high), "memory over time"
    )
