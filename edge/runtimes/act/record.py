"""What a request led to, as JSON: what `edge act --json` prints, and what goes over a link."""

from __future__ import annotations

from typing import Any

from edge.bundle import Bundle
from edge.runtimes.act.mind import Report


def record(report: Report, bundle: Bundle, run: str) -> dict[str, Any]:
    """`report` of the run `run`, with the bundle that planned it."""
    return {
        "request": report.request,
        "whole": report.whole,
        "answer": report.answer,
        "steps": [
            {
                "number": d.step.number, "tool": d.step.tool, "arguments": dict(d.step.arguments),
                "open": dict(d.step.open), "status": d.status, "would": d.outcome.would if d.outcome else "",
                "reason": d.outcome.reason if d.outcome else d.why, "text": d.outcome.text if d.outcome else "",
                "origin": d.outcome.origin if d.outcome else "user",
                "duration_ms": d.outcome.duration_ms if d.outcome else 0.0,
            }
            for d in report.steps
        ],
        "impossible": report.impossible,
        "unsaid": report.unsaid,
        "tokens": report.tokens,
        "stages_ms": report.stages_ms,
        "run": run,
        "bundle": {"name": bundle.name, "id": bundle.id, "format": bundle.format},
    }  # fmt: skip
