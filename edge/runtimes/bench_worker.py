"""One repetition in a fresh process: open a bundle, measure it, print JSON.

    python -m edge.runtimes.bench_worker '{"bundle": "...", "do": "answer", "threads": 2, ...}'

Memory and load times mean little in a process that has done something before. What it can do: `probe` the machine,
`load` cold, `answer` prompts of several lengths, `sustain` an answer for a while, `act` on requests.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge import cache, profile
from edge.errors import EdgeError, UsageError
from edge.find import load
from edge.runtimes import energy, meter, noise, smaps, traffic
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.threads import default as default_threads

VERSION = 2  # of what is asked and answered here
_WARM_UP = 8  # tokens; the first ones wait for threads and pages
_LOOK_S = 1.0


def run(request: dict[str, Any]) -> dict[str, Any]:
    """What was measured; times in the units that their names say."""
    do = request.get("do", "load" if request.get("load_only") else "answer")
    match do:
        case "probe":
            found = _probe(request)
        case "load" | "answer" | "sustain" | "act":
            found = _measure(request, do)
        case other:
            raise UsageError(f"the bench worker knows no {other!r}")
    return {**found, "version": VERSION}


def _probe(request: dict[str, Any]) -> dict[str, Any]:
    """Who else is at work, for a second; then, unless told not to, how fast memory is read."""
    before = noise.look()
    time.sleep(_LOOK_S)
    seen = noise.between(before, noise.look())
    state = profile.conditions().record()
    threads = request["threads"] or default_threads(bundles.read(Path(request["bundle"])))
    found = {"seen": seen, "conditions": state, "threads": threads}
    if request.get("bandwidth", True):
        found["read_bandwidth_bytes_per_s"] = meter.read_bandwidth_bytes_per_s(threads, state["available_bytes"])
    return found


def _measure(request: dict[str, Any], do: str) -> dict[str, Any]:
    import numpy as np

    np.ones(1)  # an array or two belongs to every session, not to the model
    folder = Path(request["bundle"])
    threads = request["threads"] or default_threads(bundles.read(folder))
    bare, bare_held = meter.rss_bytes(), smaps.of_this_process(_weights(folder))
    forgotten = do == "load" and _forget(folder)
    seen = noise.look()
    began = time.perf_counter()
    with open_bundle(folder, threads=threads, context_length=request["context"], check=False) as model:
        found: dict[str, Any] = {
            "load_s": time.perf_counter() - began,
            "python_rss_bytes": bare,
            "threads": threads,
            "context_length": model.context_length,
            "kv_bytes": meter.kv_bytes(model, model.context_length),
            "runtime": load("edge.runtimes.engines", model.bundle.format).build(),
        }
        if do == "load":
            model.session.feed(meter.prompt_ids(model, _WARM_UP))
            found |= {"first_token_s": time.perf_counter() - began, "forgotten": forgotten}
            return found
        if do == "act":
            return {**found, **_act(model), "traffic": None, **_afterwards(seen)}
        found["warm_up_ms"] = meter.token_times_ms(model, meter.prompt_ids(model, _WARM_UP), _WARM_UP)
        if do == "sustain":
            found |= _sustain(model, float(request["seconds"]))
        else:
            found["answers"] = {
                str(n): asdict(meter.answer(model, n, request["new_tokens"] if n in request["depths"] else 0))
                for n in request["prompt_tokens"]
            }
            measured = traffic.of(folder, model.bundle)
            found["traffic"] = measured.record() if measured else None
        found |= _afterwards(seen)
        held = smaps.of_this_process(_weights(folder))
        found["held"] = asdict(held) if held else None
        found["held_before"] = asdict(bare_held) if bare_held else None
        return found


def _act(model: Model) -> dict[str, Any]:
    from edge.runtimes.act import measured

    return measured.run(model)


def _afterwards(before: noise.Look) -> dict[str, Any]:
    """How the machine is, while the processor is still as warm and as fast as it was while it worked."""
    seen = noise.between(before, noise.look())
    state = {**profile.conditions().record(), **_shares(seen)}
    return {"seen": seen, "conditions": state, "peak_rss_bytes": meter.peak_rss_bytes()}


def _sustain(model: Model, seconds: float) -> dict[str, Any]:
    source = energy.find()
    readings: list[tuple[float, float]] = []

    def see() -> dict[str, Any]:
        value = source.read() if source else None
        if value is not None:
            readings.append((time.monotonic(), value))
        state = profile.conditions()
        return {
            "temperature_c": state.temperature_c,
            "frequency_mhz": state.frequency_mhz,
            "throttled": state.throttled,
        }

    see()
    points = list(meter.sustain(model, seconds, see))
    made = sum(point.pop("made") for point in points)
    used = energy.joules(source, readings) if source else None
    return {
        "sustained": points,
        "energy": {
            "source": source.name if source and used is not None else energy.NOT_MEASURED,
            **({"joules": used, "tokens": made} if used is not None else {}),
        },
    }


def _weights(folder: Path) -> list[str]:
    """What is mapped from there is weights: the bundle's folder, where its links lead, and what LiteRT has packed."""
    files = [str((folder / entry.path).resolve()) for entry in bundles.read(folder).files]
    return [f"{folder.resolve()}/", *files, f"{cache.root() / 'xnnpack'}/"]


def _shares(seen: dict[str, Any]) -> dict[str, Any]:
    return {key: seen[key] for key in ("others_share", "stolen_share")}


def _forget(folder: Path) -> bool:
    """Let the kernel forget the bundle's files, so that the load after it reads the disk; whether it can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for entry in bundles.read(folder).files:
        with (folder / entry.path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def answer(run: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Print what `run` makes of the request in the first argument, or what was wrong with it; the exit code."""
    try:
        found = run(json.loads(sys.argv[1]))
    except EdgeError as err:
        print(json.dumps({"error": err.message, "hint": err.hint, "exit_code": err.exit_code}))
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(answer(run))
