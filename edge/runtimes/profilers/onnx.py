"""onnxruntime's own profiler: it writes the time of every kernel into a file when it is told to stop."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.runtimes.engines import onnx as engine
from edge.runtimes.profilers import WARM_UP, Event, Recording, Step, layer_of

_INSTRUMENT = "onnxruntime's profiler"
_KERNEL = "_kernel_time"


def record(
    folder: Path, bundle: Bundle, prompt: Sequence[int], n_new: int, *, threads: int | None, context_length: int | None
) -> Recording:
    """Read `prompt`, then feed its last token `n_new` times; every kernel of both."""
    with tempfile.TemporaryDirectory(prefix="edge-profile-") as kept:
        session: Any = engine.load(
            folder, bundle, threads=threads, context_length=context_length, profile_to=f"{kept}/ort"
        )
        try:
            session.feed(prompt[:WARM_UP])
            session.rewind(0)
            session.feed(prompt)
            for _ in range(n_new):
                session.feed([prompt[-1]])
            written = Path(session._inner.end_profiling())
        finally:
            session.close()
        pieces = [
            min(engine.CHUNK, len(prompt) - engine.CHUNK * i) for i in range(math.ceil(len(prompt) / engine.CHUNK))
        ]
        return parse(json.loads(written.read_text(encoding="utf-8")), pieces, n_new)


def parse(rows: Sequence[Mapping[str, Any]], pieces: Sequence[int], n_new: int) -> Recording:
    """From onnxruntime's file: one run to warm up, one for each piece of the prompt, one for each new token.

    Raises `EdgeError` when it counted other runs than there were.
    """
    runs = sorted((r for r in rows if r.get("name") == "model_run"), key=lambda r: r["ts"])
    wanted = [("prefill", n) for n in pieces] + [("decode", 1)] * n_new
    if len(runs) != 1 + len(wanted):
        raise EdgeError(f"onnxruntime's profile has {len(runs)} runs, {1 + len(wanted)} were made")
    runs = runs[1:]
    zero = runs[0]["ts"]
    steps = [Step(phase, n, float(r["ts"] - zero), float(r["dur"])) for (phase, n), r in zip(wanted, runs, strict=True)]
    kernels = sorted(
        (r for r in rows if r.get("cat") == "Node" and str(r.get("name", "")).endswith(_KERNEL)), key=lambda r: r["ts"]
    )
    events: list[Event] = []
    layer = None
    counts = {"prefill": 0, "decode": 0}
    at = 0
    for step, run in zip(steps, runs, strict=True):
        layer = None
        while at < len(kernels) and kernels[at]["ts"] < run["ts"] + run["dur"]:
            row = kernels[at]
            at += 1
            if row["ts"] < run["ts"]:
                continue
            name = str(row["name"]).removesuffix(_KERNEL)
            # Kernels that were fused have names of their own; they run between those of their layer.
            found = layer_of(name)
            layer = found if found is not None else None if "lm_head" in name or "embed" in name else layer
            operator = str(row.get("args", {}).get("op_name", "?"))
            events.append(
                Event(step.phase, counts[step.phase], operator, name, layer, float(row["ts"] - zero), float(row["dur"]))
            )
        counts[step.phase] += 1
    return Recording(_INSTRUMENT, steps, events, layers_by_order=True)
