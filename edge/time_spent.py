"""A profile, added up: where the time of reading and of one new token goes, by operator and by layer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Share:
    """What one operator takes: microseconds and calls for each token of its phase, and its share of all operators."""

    operator: str
    us: float
    calls: float
    share: float


@dataclass(frozen=True)
class Phase:
    """Reading the prompt, or answering. Times are for each token (answers: medians); `plain_us` without instruments.

    `operators_us` is the sum of all operators, and `us` the whole step with instruments: what is between is calling
    them, and the instruments' own time.
    """

    name: str
    tokens: int
    us: float
    operators_us: float
    plain_us: float
    operators: tuple[Share, ...]
    layers: Mapping[int, Mapping[str, float]]  # layer -> operator -> microseconds for each token

    @property
    def overhead(self) -> float:
        """How much longer the instruments make it: 0.1 is a tenth."""
        return self.us / self.plain_us - 1 if self.plain_us else 0.0


def phases(found: Mapping[str, Any]) -> list[Phase]:
    """Both phases, from what the worker recorded."""
    recording = found["recording"]
    out = []
    for name in ("prefill", "decode"):
        steps = [s for s in recording["steps"] if s["phase"] == name]
        tokens = sum(s["tokens"] for s in steps)
        events = _typical([e for e in recording["events"] if e["phase"] == name], len(steps))
        if not tokens:
            continue
        # Tokens are alike, pieces of a prompt are not.
        alike = statistics.median(s["us"] for s in steps) if name == "decode" else None
        plain = 1e6 * found["plain_prefill_s"] / tokens if name == "prefill" else 1e3 * found["plain_token_ms"]
        out.append(
            Phase(
                name=name,
                tokens=tokens,
                us=alike or sum(s["us"] for s in steps) / tokens,
                operators_us=sum(e["us"] for e in events) / tokens,
                plain_us=plain,
                operators=_operators(events, tokens),
                layers=_layers(events, tokens),
            )
        )
    return out


def trace(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """As a Chrome trace, which ui.perfetto.dev and chrome://tracing open.

    One process with a track of the graph's runs and one of its operators, and another with memory over time, which
    was looked at while the instruments were off.
    """
    recording = found["recording"]
    events: list[dict[str, Any]] = [
        _named(1, 0, "process_name", f"{name}: {recording['instrument']}"),
        _named(1, 1, "thread_name", "runs of the graph"),
        _named(1, 2, "thread_name", "operators"),
        _named(2, 0, "process_name", "memory, without instruments"),
    ]
    for step in recording["steps"]:
        args = {"tokens": step["tokens"]}
        events.append(_span(step["phase"], step["phase"], step["start_us"], step["us"], 1, args))
    for event in recording["events"]:
        args = {"name": event["name"], "layer": event["layer"], "step": event["step"]}
        events.append(_span(event["operator"], event["phase"], event["start_us"], event["us"], 2, args))
    for at_s, resident in found["memory"]:
        events.append(
            {"ph": "C", "name": "resident", "pid": 2, "tid": 0, "ts": round(1e6 * at_s, 3), "args": {"bytes": resident}}
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _typical(events: Sequence[Mapping[str, Any]], n_steps: int) -> list[Mapping[str, Any]]:
    """Every operator of a step with the median of its times over all steps, where all steps ran the same ones.

    A moment in which something else had the processor is in one step's time of one operator, and in no median.
    """
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for event in events:
        by_step.setdefault(event["step"], []).append(event)
    rows = list(by_step.values())
    if n_steps < 3 or len({tuple(e["operator"] for e in row) for row in rows}) != 1:
        return list(events)
    medians = [statistics.median(e["us"] for e in same) for same in zip(*rows, strict=True)]
    return [{**event, "us": us} for row in rows for event, us in zip(row, medians, strict=True)]


def _operators(events: Sequence[Mapping[str, Any]], tokens: int) -> tuple[Share, ...]:
    us: dict[str, float] = {}
    calls: dict[str, int] = {}
    for event in events:
        us[event["operator"]] = us.get(event["operator"], 0.0) + event["us"]
        calls[event["operator"]] = calls.get(event["operator"], 0) + 1
    whole = sum(us.values()) or 1.0
    shares = [Share(name, spent / tokens, calls[name] / tokens, spent / whole) for name, spent in us.items()]
    return tuple(sorted(shares, key=lambda s: -s.us))


def _layers(events: Sequence[Mapping[str, Any]], tokens: int) -> dict[int, dict[str, float]]:
    out: dict[int, dict[str, float]] = {}
    for event in events:
        if event["layer"] is not None:
            layer = out.setdefault(event["layer"], {})
            layer[event["operator"]] = layer.get(event["operator"], 0.0) + event["us"] / tokens
    return dict(sorted(out.items()))


def _named(pid: int, tid: int, kind: str, words: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": words}}


def _span(name: str, category: str, start_us: float, us: float, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {
        "ph": "X", "name": name, "cat": category, "ts": round(start_us, 3), "dur": round(us, 3), "pid": 1, "tid": tid,
        "args": args,
    }  # fmt: skip
