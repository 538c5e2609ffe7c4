"""One profile in a fresh process: the answer as it is, with memory over time, then the same with instruments on.

python -m edge.runtimes.profile_worker '{"bundle": "...", "prompt_tokens": 128, "new_tokens": 16, ...}'
"""

from __future__ import annotations

import itertools
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.find import load
from edge.runtimes import meter, noise
from edge.runtimes.bench_worker import answer
from edge.runtimes.model import open_bundle
from edge.runtimes.profilers import WARM_UP
from edge.runtimes.threads import default as default_threads

_LOOK_S = 0.01


class _Watch:
    """Resident memory, a hundred times a second, while the body runs: `(seconds, bytes)`."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._began = time.perf_counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def now(self) -> float:
        return time.perf_counter() - self._began

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.points.append((self.now(), meter.rss_bytes()))

    def _look(self) -> None:
        while not self._done.is_set():
            self.points.append((self.now(), meter.rss_bytes()))
            self._done.wait(_LOOK_S)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """What was recorded; times in the units that their names say."""
    import numpy as np

    np.ones(1)
    folder = Path(request["bundle"])
    bundle = bundles.read(folder)
    threads = request["threads"] or default_threads(bundle)
    marks: dict[str, float] = {}
    before = noise.look()
    with _Watch() as watch:
        marks["load"] = watch.now()
        with open_bundle(folder, threads=threads, context_length=request["context"], check=False) as model:
            prompt = meter.prompt_ids(model, request["prompt_tokens"])
            context_length = model.context_length
            meter.token_times_ms(model, prompt[:WARM_UP], WARM_UP)
            model.session.rewind(0)
            marks["prefill"] = began = watch.now()
            model.session.feed(prompt)
            marks["decode"] = watch.now()
            stamps = [watch.now()]
            for _ in range(request["new_tokens"]):
                model.session.feed([prompt[-1]])
                stamps.append(watch.now())
            marks["end"] = watch.now()
    recording = load("edge.runtimes.profilers", bundle.format).record(
        folder, bundle, prompt, request["new_tokens"], threads=threads, context_length=request["context"]
    )
    return {
        "recording": recording.record(),
        "plain_prefill_s": marks["decode"] - began,
        "plain_token_ms": 1e3 * statistics.median(b - a for a, b in itertools.pairwise(stamps)),
        "memory": watch.points,
        "marks": marks,
        "seen": noise.between(before, noise.look()),
        "threads": threads,
        "context_length": context_length,
        "runtime": load("edge.runtimes.engines", bundle.format).build(),
    }


if __name__ == "__main__":
    sys.exit(answer(run))
