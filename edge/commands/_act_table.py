"""What acting took: one bundle that is measured so, and its stages as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge.commands._subject import Subject
from edge.measurement import Measurement, Result, Run
from edge.runtimes.act.measured import STAGES

_PERCENTILES = (50, 90, 95, 99)
_WORDS = {"request": "request, whole", "action": "for each action"}


class ActSubject(Subject):
    """A bundle that acts: a repetition is a fresh process that carries out all requests."""

    decode = None  # nothing is repeated until it is stable

    def repeat(self) -> None:
        self._keep(self._ask("act"))

    def _settings(self) -> dict[str, Any]:
        return {"act": [row["request"] for row in self._warm[-1]["requests"]]}

    def _taken(self) -> Iterator[Measurement]:
        def each(name: str, unit: str, rows: list[list[float]]) -> Iterator[Measurement]:
            if any(rows):
                yield Measurement(name, unit, tuple(x for row in rows for x in row), tuple(len(row) for row in rows))

        for name, unit, key in (("load_warm", "s", "load_s"), ("act_ready", "s", "ready_s"), ("peak_rss", "bytes", "")):
            yield Measurement(name, unit, tuple(float(row[key or "peak_rss_bytes"]) for row in self._warm))
        asked = [row["requests"] for row in self._warm]
        for stage in STAGES:
            yield from each(f"act_{stage}", "ms", [[r["stages_ms"][stage] for r in rows] for rows in asked])
        yield from each("act_request", "ms", [[r["total_ms"] for r in rows] for rows in asked])
        acted = [[r for r in rows if r["actions"]] for rows in asked]
        yield from each("act_action", "ms", [[r["total_ms"] / r["actions"] for r in rows] for rows in acted])
        yield from each("act_tokens", "tokens", [[float(r["tokens"]) for r in rows] for rows in asked])
        yield from each("act_actions", "actions", [[float(r["actions"]) for r in rows] for rows in asked])


def table(made: Run) -> str:
    """A block for each bundle: stages down, percentiles across."""
    return "\n\n".join(_block(result) for result in made.results)


def _block(result: Result) -> str:
    lines = [[f"{result.bundle.get('name')} {result.label}", *(f"p{p}" for p in _PERCENTILES)]]
    for name in (*STAGES, *_WORDS):
        if (taken := result.measurements.get(f"act_{name}")) is not None:
            lines.append([_WORDS.get(name, name), *(f"{taken.percentile(p):.1f} ms" for p in _PERCENTILES)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines]  # fmt: skip
    tokens, actions = result.measurements["act_tokens"], result.measurements["act_actions"]
    first = actions.repetitions()[0]
    did = f"{sum(n > 0 for n in first)} of {len(first)} requests led to {sum(first):.0f} actions"
    return "\n".join([*rows, f"{did}; {tokens.median:.0f} tokens were written for one (the median)"])
