"""From results to plots with two axes: the ceiling of memory, distributions, lasting work, quality beside speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edge.measurement import Measurement, Result
from edge.report.axes import Axis, Line, Point, about, lines, points, wide_and_narrow

Labels = Mapping[int, str]  # id of a result -> how the page calls it
_KINDS = ("gguf", "onnx", "tflite")
_DRAWN = 400  # steps of a distribution; more cannot be seen


def kind(result: Result) -> str:
    """The colour class of a result's format."""
    found = str(result.bundle.get("format"))
    return found if found in _KINDS else "other"


def roofline(results: Sequence[Result], labels: Labels, bandwidth: float | None) -> Markup | None:
    """Tokens per second against what one token reads, beneath what memory can deliver; `None` without both."""
    found = [(r, rate, _read(r)) for r in results if (rate := r.median("decode")) and _read(r)]
    if not found or not bandwidth:
        return None
    _, widest = about([read for _, _, read in found], from_zero=True, room=0.3)
    low = 0.5 * min(read for _, _, read in found)
    top = min(bandwidth / min(read for _, _, read in found) * 1.15, 6 * max(rate for _, rate, _ in found))
    return wide_and_narrow(
        points,
        [
            Point(labels[id(r)], kind(r), read / 1e6, rate, f"{rate:.1f} tok/s, {rate * read / bandwidth:.0%}")
            for r, rate, read in found
        ],
        Axis("megabytes that one token reads", low / 1e6, widest / 1e6),
        Axis("tokens per second", 0.0, top),
        "speed beneath the ceiling of memory bandwidth",
        ceiling=lambda megabytes: bandwidth / (megabytes * 1e6),
        ceiling_name=f"what {bandwidth / 1e9:.1f} GB/s allow",
    )


def distribution(results: Sequence[Result], labels: Labels) -> Markup | None:
    """What share of all tokens came within so many milliseconds of the one before."""
    found = [(r, r.measurements["inter_token"]) for r in results if "inter_token" in r.measurements]
    if not found:
        return None
    # One token in a hundred may take as long as twenty others; the axis ends where nearly all are.
    most = 1.15 * max(m.percentile(99) for _, m in found)
    least = 0.9 * min(min(m.samples) for _, m in found)
    return wide_and_narrow(
        lines,
        [Line(labels[id(r)], kind(r), tuple(shares(m))) for r, m in found],
        Axis("milliseconds from one token to the next", least, most),
        Axis("share of tokens, %", 0.0, 100.0),
        "distribution of the time between tokens",
        steps=True,
    )


def shares(taken: Measurement) -> list[tuple[float, float]]:
    """Points `(value, per cent of samples up to it)`."""
    ordered = sorted(taken.samples)
    every = max(1, len(ordered) // _DRAWN)
    kept = [*range(0, len(ordered), every), len(ordered) - 1]
    return [(ordered[0], 0.0), *((ordered[i], 100 * (i + 1) / len(ordered)) for i in dict.fromkeys(kept))]


def lasting(results: Sequence[Result], labels: Labels) -> list[tuple[str, Markup]]:
    """Speed over the time of a long answer, and temperature where it was told."""
    found = [r for r in results if len(r.sustained) > 1]
    if not found:
        return []
    plots = [("tokens per second", _over_time(found, labels, "tokens_per_s", "tokens per second", from_zero=True))]
    warm = [r for r in found if all(p.get("temperature_c") is not None for p in r.sustained)]
    if warm:
        plots.append(("temperature", _over_time(warm, labels, "temperature_c", "°C", from_zero=False)))
    return plots


def _over_time(results: Sequence[Result], labels: Labels, key: str, name: str, *, from_zero: bool) -> Markup:
    rows = [
        Line(labels[id(r)], kind(r), tuple((float(p["at_s"]), float(p[key])) for p in r.sustained)) for r in results
    ]
    x = max(p[0] for row in rows for p in row.points)
    low, high = about([p[1] for row in rows for p in row.points], from_zero=from_zero)
    return wide_and_narrow(lines, rows, Axis("seconds", 0.0, x), Axis(name, low, high), f"{name} over time")


def quality(results: Sequence[Result], labels: Labels) -> dict[str, Any] | None:
    """Speed against what was lost of the source's distribution; those that none beats in both are joined.

    `None` with fewer than two results that were compared with their source. Results of different checkpoints are
    not drawn together: a difference to one source says nothing beside a difference to another.
    """
    found = [(r, rate, lost) for r in results if (rate := r.median("decode")) and (lost := _lost(r)) is not None]
    sources = {str(sorted((r.bundle.get("source") or {}).get("files", {}).items())) for r, _, _ in found}
    if len(found) < 2 or len(sources) > 1:
        return None
    best = [
        (lost, rate)
        for _, rate, lost in found
        if not any(
            o_rate >= rate and o_lost <= lost and (o_rate, o_lost) != (rate, lost) for _, o_rate, o_lost in found
        )
    ]
    low, high = about([lost for _, _, lost in found], from_zero=True, room=0.3)
    _, top = about([rate for _, rate, _ in found], from_zero=True, room=0.15)
    plot = wide_and_narrow(
        points,
        [
            Point(labels[id(r)], kind(r), lost, rate, f"{rate:.1f} tok/s, mean KL divergence {lost:.4g}")
            for r, rate, lost in found
        ],
        Axis("mean KL divergence from the source, nats (less is better)", low, high),
        Axis("tokens per second", 0.0, top),
        "quality beside speed",
        frontier=sorted(set(best)),
    )
    return {"plot": plot, "best": [labels[id(r)] for r, rate, lost in found if (lost, rate) in best]}


def _lost(result: Result) -> float | None:
    logits = (result.bundle.get("quality") or {}).get("logits")
    found = logits.get("mean_kld") if isinstance(logits, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _read(result: Result) -> float:
    """Bytes of a token in the middle of the first answer."""
    depth = (result.settings.get("depths") or [0])[0] + result.settings.get("new_tokens", 0) / 2
    traffic = result.traffic
    return float(traffic.get("weights_bytes") or 0) and (
        float(traffic["weights_bytes"]) + depth * float(traffic.get("kv_bytes_per_token") or 0)
    )
