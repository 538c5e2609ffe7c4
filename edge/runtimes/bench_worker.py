"""One repetition in a fresh process: open a bundle, measure it, print JSON.

    python -m edge.runtimes.bench_worker '{"bundle": "...", "threads": 2, ...}'

Memory and load times mean little in a process that has done something before.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge import profile
from edge.errors import EdgeError
from edge.find import load
from edge.runtimes import meter
from edge.runtimes.cores import physical_cores
from edge.runtimes.model import open_bundle

_WARM_UP = 8  # tokens; the first ones wait for threads and pages


def run(request: dict[str, Any]) -> dict[str, Any]:
    """What was measured; times in the units that their names say."""
    import numpy as np

    np.ones(1)  # an array or two belongs to every session, not to the model
    bare = meter.rss_bytes()
    threads = request["threads"] or physical_cores()
    forgotten = request["load_only"] and _forget(Path(request["bundle"]))
    began = time.perf_counter()
    with open_bundle(request["bundle"], threads=threads, context_length=request["context"], check=False) as model:
        found: dict[str, Any] = {
            "load_s": time.perf_counter() - began,
            "python_rss_bytes": bare,
            "threads": threads,
            "context_length": model.context_length,
            "kv_bytes": meter.kv_bytes(model, model.context_length),
            "runtime": load("edge.runtimes.engines", model.bundle.format).build(),
        }
        if request["load_only"]:
            model.session.feed(meter.prompt_ids(model, _WARM_UP))
            found["first_token_s"] = time.perf_counter() - began
            found["forgotten"] = forgotten
            return found
        meter.token_times_ms(model, meter.prompt_ids(model, _WARM_UP), _WARM_UP)
        found["prefill_s"] = {str(n): meter.prefill_s(model, n) for n in request["prompt_tokens"]}
        prompt = meter.prompt_ids(model, _WARM_UP)
        found["token_ms"] = meter.token_times_ms(model, prompt, request["new_tokens"])
        # Now, while the processor is still as warm and as fast as it was while it answered.
        found["conditions"] = profile.conditions().record()
        found["peak_rss_bytes"] = meter.peak_rss_bytes()
        return found


def _forget(folder: Path) -> bool:
    """Let the kernel forget the bundle's files, so that the load after it reads the disk; whether it can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for entry in bundles.read(folder).files:
        with (folder / entry.path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def main() -> int:
    try:
        found = run(json.loads(sys.argv[1]))
    except EdgeError as err:
        print(json.dumps({"error": err.message, "hint": err.hint, "exit_code": err.exit_code}))
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
