"""The fake has one operator, which takes no time to speak of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edge.bundle import Bundle
from edge.runtimes.engines import echo as engine
from edge.runtimes.profilers import Event, Recording, Step


def record(
    folder: Path, bundle: Bundle, prompt: Sequence[int], n_new: int, *, threads: int | None, context_length: int | None
) -> Recording:
    """Read `prompt`, then feed its last token `n_new` times."""
    session = engine.load(folder, bundle, threads=threads, context_length=context_length)
    steps, events = [], []
    counts = {"prefill": 0, "decode": 0}
    zero = time.perf_counter_ns()
    for phase, tokens in [("prefill", list(prompt)), *[("decode", [prompt[-1]])] * n_new]:
        start = time.perf_counter_ns()
        session.feed(tokens)
        us = (time.perf_counter_ns() - start) / 1e3
        steps.append(Step(phase, len(tokens), (start - zero) / 1e3, us))
        events.append(Event(phase, counts[phase], "Echo", "echo", 0, (start - zero) / 1e3, us))
        counts[phase] += 1
    return Recording("a clock around the fake", steps, events)
