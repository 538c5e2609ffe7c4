"""The front that a plan was chosen from as a page: size against error, and a table of all that is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge.report.axes import Axis, Point, about, points, wide_and_narrow

_NAMED = 6  # points with a name: the chosen one, and formats' own plans; the others show theirs to a mouse


def page(plans: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML text, whole in itself; `plans` are what `edge export --json` says of them."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text: str = environment.get_template("plan.html.jinja").render(
        plans=[
            {"why": plan["why"], "plot": _plot(plan), "rows": [_row(c, _named(plan)) for c in plan["front"]]}
            for plan in plans
        ],
        notes=list(dict.fromkeys(note for plan in plans for note in plan["notes"])),
    )
    return text


def _plot(plan: Mapping[str, Any]) -> Markup:
    front, chosen = plan["front"], _named(plan)
    at = [(c["size_bytes"] / 1e6, 100 * (1 - c["agreement"])) for c in front]
    own = [c for c in front if not c["plan"].startswith("mixed-")][:_NAMED]
    rows = [
        Point(
            _name(c) if c == chosen or c in own else "", c["format"] if c != chosen else "bad", x, y,
            f"{_name(c)}: {x:.1f} MB, {y:.2g} % of top tokens change",
        )
        for c, (x, y) in zip(front, at, strict=True)
    ]  # fmt: skip
    return wide_and_narrow(
        points,
        rows,
        Axis("megabytes of the bundle", *about([x for x, _ in at])),
        Axis("top tokens that change, %", *about([y for _, y in at], from_zero=True)),
        "what can be had: size against error",
        frontier=at if len({c["format"] for c in front}) == 1 else (),
    )


def _named(plan: Mapping[str, Any]) -> Any:
    """The choice, or what comes closest where nothing fits."""
    return plan["chosen"] if plan["fits"] else plan["closest"]


def _name(candidate: Mapping[str, Any]) -> str:
    return f"{candidate['format']} {candidate['plan']}"


def _row(c: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    speed = c["tokens_per_s"]
    return {
        "chosen": c == chosen,
        "format": c["format"],
        "name": _name(c),
        "size": f"{c['size_bytes'] / 1e6:.1f} MB",
        "memory": f"{c['memory_bytes'] / 1e6:.0f} MB",
        "speed": f"{speed['expected']:.3g} ({speed['low']:.3g} to {speed['high']:.3g})" if speed else "not known",
        "agreement": f"{c['agreement']:.1%}",
        "kld": f"{c['mean_kld']:.2g}",
    }
