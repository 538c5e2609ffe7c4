"""What acting took: the part of the page for runs of `edge bench --act`, and its table for a pull request."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edge.measurement import Measurement, Result
from edge.report import pictures
from edge.report.axes import Axis, Line, lines, wide_and_narrow
from edge.report.plots import Spread, Stack, both, spreads, stacks

# In their order, from the request to what it did.
STAGES = {
    "perception": "what comes with a request is read",
    "recall": "what was done before is looked up",
    "intent": "the model says which tool, and with what",
    "plan": "steps are put in order, and checked against the policy",
    "execution": "tools do it; the journal and the log are on the disk",
}
_WHOLE = {"request": "a request, whole", "action": "for each action that came of it"}

Labels = Mapping[int, str]  # id of a result -> how the page calls it


def shown(results: Sequence[Result], labels: Labels) -> dict[str, Any]:
    """What the page shows of results that acted, all on one machine and with the same requests."""
    stacked = [stack for r in results if (stack := _stack(r, labels[id(r)]))]
    return {
        "table": [_row(r, labels[id(r)]) for r in results],
        "requests_asked": len(results[0].settings["act"]),
        "stages": list(STAGES),
        "stacked": both(stacks, stacked, "milliseconds by stage") if stacked else None,
        "spreads": [
            (words, both(spreads, rows, f"milliseconds: {name}"))
            for name, words in _named()
            if (rows := [_spread(labels[id(r)], r, taken) for r in results if (taken := _taken(r, name))])
        ],
        "shares": _shares(results, labels),
        "requests": [(labels[id(r)], pictures.kind(r), asked) for r in results if (asked := requests(r))],
        "ready": [
            (words, both(spreads, rows, f"seconds: {words}"))
            for name, words in (("load_warm", "the model is loaded"), ("act_ready", "and then ready to act"))
            if (rows := [_spread(labels[id(r)], r, m, "s") for r in results if (m := r.measurements.get(name))])
        ],
    }


def requests(result: Result) -> list[dict[str, str]]:
    """For each request: its words, the median of what it took, its share of the model, what came of it."""
    asked = result.settings["act"]

    def each(name: str) -> list[list[float]] | None:
        """Samples by request, where every repetition made all of them."""
        taken = _taken(result, name)
        if taken is None or set(taken.repeats) != {len(asked)}:
            return None
        return [list(taken.samples[i :: len(asked)]) for i in range(len(asked))]

    whole, intent, actions, tokens = (each(name) for name in ("request", "intent", "actions", "tokens"))
    if whole is None:
        return []
    return [
        {
            "request": words,
            "took": f"{statistics.median(whole[i]):.1f} ms",
            "range": f"{min(whole[i]):.1f} to {max(whole[i]):.1f}",
            "model": f"{statistics.median(intent[i]):.1f} ms" if intent else "",
            "tokens": f"{statistics.median(tokens[i]):.0f}" if tokens else "",
            "actions": _range(actions[i]) if actions else "",
        }
        for i, words in enumerate(asked)
    ]


def table(results: Sequence[Result], names: Labels) -> tuple[list[str], list[list[str]]]:
    """Heads, and a row for each result: percentiles in milliseconds by stage."""
    heads = ["bundle", "on disk", "ready", *(words for _, words in _short()), "led to actions", "tokens", "peak memory",
             "proven"]  # fmt: skip
    rows = []
    for result in results:
        row = _row(result, names[id(result)])
        stages = [tail_words(taken, (50, 95, 99)) if (taken := _taken(result, name)) else "" for name, _ in _short()]
        rows.append(
            [
                row["label"], row["size"], row["ready"], *stages, row["acted"], row["tokens"], row["peak"],
                "yes" if row["proven"] else "no",
            ]
        )  # fmt: skip
    return heads, rows


def _named() -> list[tuple[str, str]]:
    return [*((name, words) for name, words in _WHOLE.items()), *((n, f"{n}: {words}") for n, words in STAGES.items())]


def _short() -> list[tuple[str, str]]:
    return [("request", "request, p50 / p95 / p99 ms"), ("action", "each action"), *((name, name) for name in STAGES)]


def _taken(result: Result, name: str) -> Measurement | None:
    return result.measurements.get(f"act_{name}")


def _row(result: Result, label: str) -> dict[str, Any]:
    whole, action, tokens = (_taken(result, name) for name in ("request", "action", "tokens"))
    means = _means(result)
    total = sum(means.values())
    ready = [m.median for name in ("load_warm", "act_ready") if (m := result.measurements.get(name))]
    return {
        "label": label,
        "kind": pictures.kind(result),
        "proven": bool(result.bundle.get("proven")),
        "size": f"{result.bundle.get('size_bytes', 0) / 1e6:.0f} MB",
        "ready": f"{sum(ready):.2f} s" if ready else "",
        "request": f"{tail_words(whole, (50, 95))} ms" if whole else "",
        "action": f"{action.median:.0f} ms" if action else "",
        "model": f"{means['intent'] / total:.0%}" if total and "intent" in means else "",
        "acted": _acted(result),
        "tokens": f"{tokens.median:.0f}" if tokens else "",
        "peak": f"{peak / 1e6:.0f} MB" if (peak := result.median("peak_rss")) else "",
    }


def _acted(result: Result) -> str:
    """How many of the requests led to actions; where repetitions are not alike, from how many to how many."""
    taken = _taken(result, "actions")
    if taken is None:
        return ""
    rows = taken.repetitions()
    return f"{_range([float(sum(n > 0 for n in row)) for row in rows])} of {len(rows[0])}"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _means(result: Result) -> dict[str, float]:
    """Means, for those of the stages add up to that of the whole; medians do not."""
    return {name: statistics.fmean(taken.samples) for name in STAGES if (taken := _taken(result, name))}


def _stack(result: Result, label: str) -> Stack | None:
    means = _means(result)
    if not means:
        return None
    # A stage that nobody measured is none: those behind it keep their shade.
    parts = tuple((f"{name}: {means.get(name, 0.0):.2f} ms", means.get(name, 0.0)) for name in STAGES)
    return Stack(label, pictures.kind(result), parts, None, f"{sum(means.values()):.0f} ms")


def _spread(label: str, result: Result, taken: Measurement, unit: str = "ms") -> Spread:
    least, p5, p50, p95, p99, most = (taken.percentile(p) for p in (0, 5, 50, 95, 99, 100))
    words = f"{taken.median:.2f} s" if unit == "s" else tail_words(taken, (50, 95, 99))
    return Spread(label, pictures.kind(result), (least, p5, p50, p95, p99, most), words)


def tail_words(taken: Measurement, percents: Sequence[float]) -> str:
    """Percentiles with three digits, a dash where there are too few samples for one."""
    found = [taken.tail(p) for p in percents]
    return " / ".join("–" if at is None else f"{at:.0f}" if at >= 100 else f"{at:.3g}" for at in found)


def _shares(results: Sequence[Result], labels: Labels) -> Markup | None:
    """What share of all requests was done within so many milliseconds."""
    found = [(r, taken) for r in results if (taken := _taken(r, "request"))]
    if not found:
        return None
    return wide_and_narrow(
        lines,
        [Line(labels[id(r)], pictures.kind(r), tuple(pictures.shares(taken))) for r, taken in found],
        Axis("milliseconds from a request to what it did", 0.0, 1.05 * max(max(taken.samples) for _, taken in found)),
        Axis("share of requests, %", 0.0, 100.0),
        "distribution of the time that requests take",
        steps=True,
    )
