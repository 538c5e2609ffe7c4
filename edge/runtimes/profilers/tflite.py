"""LiteRT's profiler: operators of the graph, and those that XNNPACK runs in their place, in whole microseconds.

It is there in the library that the package ships, and its Python interface does not reach it; see
`edge.runtimes.litert_c`. The session itself runs on it, so that prefills, near graphs and masks are the ones that
answer. The decoder of a model that sees takes embeddings; fetching those of tokens is timed by the clock, and stands
as one operator before the run that they were fetched for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge.bundle import Bundle
from edge.readers import tflite as reader
from edge.runtimes import litert, native_stderr
from edge.runtimes.cores import physical_cores
from edge.runtimes.engines.tflite import TfliteSession, embedder
from edge.runtimes.litert_c import DELEGATED, OPERATOR, ProfiledModel
from edge.runtimes.profilers import WARM_UP, Event, Recording, Step

if TYPE_CHECKING:
    import numpy as np

_INSTRUMENT = "LiteRT's profiler"
_PRODUCT = "Fully Connected"
_FETCH = "Embedding of tokens"


class _Runner:
    """What `edge.runtimes.litert.Runner` is, with a list of what was timed in each run."""

    def __init__(self, model: ProfiledModel, given: str, n_logits: int) -> None:
        self._model, self._given, self._n_logits = model, given, n_logits
        self.runs: list[tuple[str, int, int, list[Any]]] = []
        self.recording = False
        self._fetched_ns = 0  # since the last run, for the next

    def fetching(self, fetch: Callable[..., Any]) -> Callable[..., Any]:
        """The embedder, timed."""

        def timed(**given: Any) -> Any:
            began = time.perf_counter_ns()
            try:
                return fetch(**given)
            finally:
                self._fetched_ns += time.perf_counter_ns() - began

        return timed

    def run(self, signature: str, given: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        import numpy as np

        for name, values in ((self._given, given), ("input_pos", positions), ("mask", mask)):
            self._model.write(signature, name, np.ascontiguousarray(values))
        began = time.perf_counter_ns()
        self._model.run(signature)
        ended = time.perf_counter_ns()
        rows = self._model.take()
        if self._fetched_ns:
            us = self._fetched_ns / 1e3
            rows = [{"name": _FETCH, "type": DELEGATED, "us": us, "index": 0}, *rows]
            began, self._fetched_ns = began - self._fetched_ns, 0
        if self.recording:
            self.runs.append((signature, began, ended, rows))
        return np.zeros(self._n_logits, np.float32) if signature.endswith("decode") else None

    def close(self) -> None:
        self._model.close()


def record(
    folder: Path, bundle: Bundle, prompt: Sequence[int], n_new: int, *, threads: int | None, context_length: int | None
) -> Recording:
    """Read `prompt`, then feed its last token `n_new` times; every operator of both."""
    path = Path(folder) / bundle.model_file
    header = reader.read(path)
    decode = header.signatures["decode"]
    fetch = embedder(Path(folder), bundle, header)
    with native_stderr.captured():
        model = ProfiledModel(path, threads=threads or physical_cores(), packed="")
        runner = _Runner(model, litert.given_input(decode), decode.outputs["logits"].shape[-1])
        # Nobody keeps or copies the cache of what is profiled.
        session = TfliteSession(
            cast(litert.Runner, runner), header.signatures, context_length=context_length or bundle.context_length,
            embedder=runner.fetching(fetch) if fetch else None,
        )  # fmt: skip
        try:
            model.start()
            session.feed(prompt[:WARM_UP])
            session.rewind(0)
            runner.recording = True
            session.feed(prompt)
            n_prefill = len(runner.runs)
            for _ in range(n_new):
                session.feed([prompt[-1]])
        finally:
            session.close()
    return parse(runner.runs, n_prefill, len(prompt), layers=_layers(header))


def parse(runs: Sequence[tuple[str, int, int, list[Any]]], n_prefill: int, n_prompt: int, *, layers: int) -> Recording:
    """From what each run timed. XNNPACK says how long its operators took and not when: they stand in their order.

    Layers are told from the order too, where all layers (but the last) have the same number of matrix products.
    """
    zero = runs[0][1]
    steps, events = [], []
    counts = {"prefill": 0, "decode": 0}
    by_order = False
    done = 0
    for i, (signature, began, ended, rows) in enumerate(runs):
        phase = "prefill" if i < n_prefill else "decode"
        size = int(signature.rsplit("_", 1)[1]) if "prefill" in signature else 1
        tokens = min(size, n_prompt - done) if phase == "prefill" else 1
        done += tokens
        start = (began - zero) / 1e3
        steps.append(Step(phase, tokens, start, (ended - began) / 1e3))
        timed = [row for row in rows if row["type"] in (OPERATOR, DELEGATED)]
        # An operator that stands for all that XNNPACK runs would count everything twice.
        timed = [row for row in timed if not (row["type"] == OPERATOR and "Delegate" in row["name"])]
        products = sum(_PRODUCT in row["name"] for row in timed) - ("prefill" not in signature)
        # A prefill needs no more of the last layer than its keys and values.
        each = -(-products // layers) if layers else 0
        known = each > 0 and products > each * (layers - 1)
        by_order = by_order or known
        seen, at = 0, start
        for row in timed:
            inside = known and seen < each * layers and row["name"] != _FETCH
            layer = seen // each if inside else None
            seen += _PRODUCT in row["name"]
            events.append(
                Event(
                    phase,
                    counts[phase],
                    _short(row["name"]),
                    f"{signature} {row['index']} {row['name']}",
                    layer,
                    at,
                    float(row["us"]),
                )
            )
            at += row["us"]
        counts[phase] += 1
    return Recording(_INSTRUMENT, steps, events, layers_by_order=by_order)


def _short(name: str) -> str:
    """XNNPACK's name without its types, but for that of a product's weights.

    >>> _short("Fully Connected (NC, QDU8, F32, QB4W) GEMM"), _short("Softmax (NC, F32)"), _short("RESHAPE")
    ('Fully Connected QB4W', 'Softmax', 'RESHAPE')
    """
    base, _, types = name.partition(" (")
    kinds = types.partition(")")[0].split(", ")
    return f"{base} {kinds[-1]}" if base == _PRODUCT and types else base


def _layers(header: reader.TfliteHeader) -> int:
    """How many caches of keys there are."""
    return sum(name.startswith(f"{litert.CACHE_PREFIX}k_") for name in header.signatures["decode"].inputs)
