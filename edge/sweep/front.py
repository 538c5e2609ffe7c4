"""Which cells nothing beats, and all of them as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge.sweep.results import PASSED

SIZE = "size"
_WHY = 70  # characters of a reason that the table has room for


def divergence(line: Mapping[str, Any]) -> float | None:
    """Nats from the model that was named: those of the export, and those of the student or of fewer experts on top.

    Divergences do not quite add up; what a student loses with a smaller vocabulary is not in it.
    """
    measured = line.get("mean_kld")
    return None if measured is None else float(measured) + float(line.get("made_kld", 0.0))


def marked(lines: Sequence[Mapping[str, Any]], devices: Iterable[str]) -> list[dict[str, Any]]:
    """The lines with their `divergence` and `front`: in what nothing else beats them, "size" or a device.

    1. Only what passed the gate is compared, and only with others of the same model: divergences are from their own
       source.
    2. On a front, nothing is both smaller (or faster on that device) and nearer to its source.
    3. What does not run on a device is not on its front.
    """
    found: list[dict[str, Any]] = [dict(line) | {"divergence": divergence(line), "front": []} for line in lines]
    for model in dict.fromkeys(line["model"] for line in found):  # Rule 1
        rivals = [line for line in found if line["model"] == model and line["status"] == PASSED]
        _mark(rivals, SIZE, {id(line): float(line["size_bytes"]) for line in rivals})
        for device in devices:
            runs = [line for line in rivals if (p := line["predictions"].get(device)) and not p["against"]]  # Rule 3
            known = [line for line in runs if line["predictions"][device]["tokens_per_s"]]
            _mark(known, device, {id(x): -x["predictions"][device]["tokens_per_s"]["expected"] for x in known})
    return found


def _mark(rivals: Sequence[dict[str, Any]], name: str, cost: Mapping[int, float]) -> None:
    at = [(cost[id(line)], far, line) for line in rivals if (far := line["divergence"]) is not None]
    for a, b, line in at:
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d, _ in at):  # Rule 2
            line["front"].append(name)


def table(lines: Sequence[Mapping[str, Any]], devices: Sequence[str]) -> str:
    """All cells, model by model; a star stands where nothing of the same model beats it."""
    rows = [("model", "export", "size", "mean KLD", "top tokens kept", "gate", *devices, "took", "")]
    for line in lines:
        star = {name: "*" for name in line["front"]}
        size, kept, far = line.get("size_bytes"), line.get("agreement"), line["divergence"]
        rows.append(
            (
                _short(line["model"]),
                line["label"],
                "" if size is None else f"{size / 1e6:.1f} MB{star.get(SIZE, ' ')}",
                "" if far is None else f"{'about ' if 'made_kld' in line else ''}{far:.2g}",
                "" if kept is None else f"{kept:.1%}",
                line["status"],
                *(_answers(line["predictions"].get(d)) + star.get(d, "") for d in devices),
                f"{line['time_s']:.0f} s" if "time_s" in line else "",
                _why(line),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _answers(made: Mapping[str, Any] | None) -> str:
    if made is None:
        return ""
    if made["against"]:
        return "too large"
    memory = f"{made['memory_bytes'] / 1e6:.0f} MB"
    speed = made["tokens_per_s"]
    if speed is None:
        return memory
    low, middle, high = (_number(speed[name]) for name in ("low", "expected", "high"))
    return f"{middle} tok/s ({low} to {high}), {memory}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _why(line: Mapping[str, Any]) -> str:
    """Why it did not pass, cut to a line."""
    words = str(line.get("why") or next(iter(line.get("gate", {}).get("failures", ())), "")).partition("\n")[0]
    return words if len(words) <= _WHY else f"{words[: _WHY - 1]}…"


def _short(model: str) -> str:
    """A path by its last part: where it lies stands in the line."""
    return model.rstrip("/").rsplit("/", 1)[-1] if model.startswith("/") else model
