"""llama.cpp calls back before and after every operator it is asked about, and then runs them one by one.

That takes longer than a whole graph at once: threads meet after each operator, and the small ones, which otherwise take
a microsecond, show that meeting. Large ones (the matrix products, where the time is) are little changed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.runtimes.engines import gguf as engine
from edge.runtimes.profilers import WARM_UP, Event, Recording, Step, layer_of

_INSTRUMENT = "llama.cpp's evaluation callback"


def record(
    folder: Path, bundle: Bundle, prompt: Sequence[int], n_new: int, *, threads: int | None, context_length: int | None
) -> Recording:
    """Read `prompt`, then feed its last token `n_new` times; every operator of both."""
    import llama_cpp

    ggml = _ggml(Path(llama_cpp.__file__).parent / "lib")
    seen: list[tuple[int, int, bytes, bytes]] = []
    recording = False
    began = 0

    def watch(tensor: int, ask: bool, _: Any) -> bool:
        nonlocal began
        if not recording:
            return not ask
        if ask:
            began = time.perf_counter_ns()
        else:
            # What is between the question and this answer is this operator alone.
            seen.append((began, time.perf_counter_ns(), ggml.ggml_op_desc(tensor), ggml.ggml_get_name(tensor)))
        return True

    session = engine.load(folder, bundle, threads=threads, context_length=context_length, watch=watch)
    steps: list[tuple[str, int, int, int, int]] = []
    try:
        session.feed(prompt[:WARM_UP])
        session.rewind(0)
        recording = True
        zero = time.perf_counter_ns()
        for phase, tokens in [("prefill", list(prompt)), *[("decode", [prompt[-1]])] * n_new]:
            start, first = time.perf_counter_ns(), len(seen)
            session.feed(tokens)
            steps.append((phase, len(tokens), start, time.perf_counter_ns(), first))
    finally:
        recording = False
        session.close()
    events, counts = [], {"prefill": 0, "decode": 0}
    ends = [first for *_, first in steps[1:]] + [len(seen)]
    for (phase, _, _, _, first), end in zip(steps, ends, strict=True):
        for at, done, operator, raw in seen[first:end]:
            name = raw.decode(errors="replace")
            events.append(
                Event(
                    phase, counts[phase], operator.decode(), name, layer_of(name), (at - zero) / 1e3, (done - at) / 1e3
                )
            )
        counts[phase] += 1
    return Recording(
        _INSTRUMENT,
        [Step(phase, n, (a - zero) / 1e3, (b - a) / 1e3) for phase, n, a, b, _ in steps],
        events,
    )


def _ggml(folder: Path) -> Any:
    """The functions that name an operator and a tensor, from the library that the runtime itself uses."""
    name = next((n for n in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll") if (folder / n).exists()), None)
    if name is None:
        raise EdgeError(f"llama-cpp-python in {folder} has no ggml library", hint="reinstall llama-cpp-python")
    ggml = ctypes.CDLL(str(folder / name))
    for function in (ggml.ggml_get_name, ggml.ggml_op_desc):
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    return ggml
