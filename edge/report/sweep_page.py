"""What a sweep found as a page: size, and speed on each device, against divergence, and a table of all cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge.report.axes import Axis, Point, about, points

_SIZE = "size"


def page(lines: Sequence[Mapping[str, Any]], devices: Sequence[str]) -> str:
    """The page as HTML text, whole in itself; `lines` are what `edge sweep --json` says of its cells."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    models = []
    for model in dict.fromkeys(line["model"] for line in lines):
        own = [line for line in lines if line["model"] == model]
        plots = [_plot(own, _SIZE, "megabytes of the bundle", _megabytes)]
        for device in devices:
            plots.append(_plot(own, device, f"tokens a second on {device}, expected", partial(_speed, device)))
        rows = [_row(line, devices) for line in own]
        models.append({"name": model, "plots": [plot for plot in plots if plot], "rows": rows})
    notes = dict.fromkeys(n for line in lines for made in line["predictions"].values() for n in made["notes"])
    text: str = environment.get_template("sweep.html.jinja").render(
        models=models, devices=list(devices), notes=list(notes)
    )
    return text


def _plot(
    lines: Sequence[Mapping[str, Any]], name: str, axis: str, x_of: Callable[[Mapping[str, Any]], float | None]
) -> Markup | None:
    at = [(x, y, line) for line in lines if (x := x_of(line)) is not None and (y := line["divergence"]) is not None]
    if not at:
        return None
    rows = [
        Point(line["label"] if line["status"] == "passed" else f"{line['label']} ({line['status']})",
              line["bundle"]["format"], x, y, f"{line['label']}: {x:.4g}, {y:.2g} nats, gate: {line['status']}")
        for x, y, line in at
    ]  # fmt: skip
    return points(
        rows,
        Axis(axis, *about([x for x, _, _ in at])),
        Axis("mean KLD, nats", *about([y for _, y, _ in at], from_zero=True)),
        f"{axis} against divergence",
        frontier=sorted((x, y) for x, y, line in at if name in line["front"]),
    )


def _megabytes(line: Mapping[str, Any]) -> float | None:
    return None if line["size_bytes"] is None else line["size_bytes"] / 1e6


def _speed(device: str, line: Mapping[str, Any]) -> float | None:
    made = line["predictions"].get(device)
    return None if made is None or made["against"] or not made["tokens_per_s"] else made["tokens_per_s"]["expected"]


def _row(line: Mapping[str, Any], devices: Sequence[str]) -> dict[str, Any]:
    size, far, kept = _megabytes(line), line["divergence"], line.get("agreement")
    return {
        "format": line["cell"]["format"],
        "name": line["label"],
        "front": ", ".join(line["front"]),
        "command": line["command"],
        "size": "" if size is None else f"{size:.1f} MB",
        "kld": "" if far is None else f"{far:.2g}",
        "kept": "" if kept is None else f"{kept:.1%}",
        "gate": line["status"] + (f": {line['why']}" if "why" in line else ""),
        "devices": [_said(line["predictions"].get(device)) for device in devices],
    }


def _said(made: Mapping[str, Any] | None) -> str:
    if made is None:
        return ""
    if made["against"]:
        return "; ".join(made["against"])
    speed = made["tokens_per_s"]
    if not speed:
        return "not known"
    low, middle, high = (_number(speed[name]) for name in ("low", "expected", "high"))
    return f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
