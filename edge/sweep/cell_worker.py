"""One cell, in a process of its own: a request on standard input, events as lines of JSON on standard output.

Standard input stays open as long as somebody waits for the answer. When it closes, the process ends, and with it all
that it started: whoever wanted the cell is gone, killed or not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    request = json.loads(sys.stdin.readline())
    # Libraries print what they like: only events go where the answer is waited for.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_who_asked, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        # Every runtime counts its threads by the cores that it may use.
        usable = os.sched_getaffinity(0) & set(request["cores"])
        os.sched_setaffinity(0, usable or os.sched_getaffinity(0))
    began = time.perf_counter()
    try:
        outcome = _outcome(request, _Told(events))
    except KeyboardInterrupt:
        os._exit(130)
    print(json.dumps({"outcome": {**outcome, "time_s": round(time.perf_counter() - began, 2)}}), file=events)


def _end_with_who_asked() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


class _Told:
    """Progress as events: the step, and lines worth keeping."""

    def __init__(self, events: TextIO) -> None:
        self._events = events

    def start(self, step: str, total: float | None = None, unit: str | None = None) -> None:
        print(json.dumps({"step": step}), file=self._events)

    def advance(self, done: float) -> None:
        pass

    def say(self, line: str) -> None:
        print(json.dumps({"say": line}), file=self._events)


def _outcome(request: dict[str, Any], progress: _Told) -> dict[str, Any]:
    from edge.errors import BudgetError, EdgeError
    from edge.sweep.results import FAILED, IMPOSSIBLE

    try:
        return _made(request, progress)
    except BudgetError as err:
        return {"status": IMPOSSIBLE, "why": err.message, "hint": err.hint}
    except EdgeError as err:
        return {"status": FAILED, "why": err.message, "hint": err.hint}
    except MemoryError:
        return {"status": FAILED, "why": "out of memory", "hint": "close other programs, or give --jobs 1"}
    except OSError as err:
        where = f": {err.filename}" if err.filename else ""
        return {"status": FAILED, "why": f"{err.strerror or err}{where}"}
    except Exception as err:  # noqa: BLE001 - of a library or of ours: this cell's failure, not that of the others
        traceback.print_exc()
        return {"status": FAILED, "why": f"{type(err).__name__}: {err}"[:2000], "hint": "its log says where"}


def _made(request: dict[str, Any], progress: _Told) -> dict[str, Any]:
    from edge.export import cache, pipeline
    from edge.export.source import open_source
    from edge.find import names
    from edge.sweep.cell import AUTO, from_record

    cell = from_record(request["cell"])
    found = open_source(cell.model, progress=progress)
    if found.id != request["source"]:
        from edge.errors import UsageError

        raise UsageError(
            f"{cell.model} is another model here than where the sweep began ({found.id}, not {request['source']})",
            hint="give every machine the same files under the same path",
        )
    taken: dict[str, Any] = {}
    place = cache.root() / "sweeps"
    place.mkdir(parents=True, exist_ok=True)
    cache.sweep(place)
    folder = cache.work_folder(place)
    try:
        pipeline.export(
            cell.model,
            folder,
            formats=names("edge.export.formats") if cell.format == AUTO else (cell.format,),
            quantization=cell.quantization or "4bit",
            context_length=cell.context,
            calibration=None if cell.calibration is None else Path(cell.calibration),
            held_out=None if cell.held_out is None else Path(cell.held_out),
            calibrate=cell.calibrate,
            keep_experts=cell.experts,
            distill=cell.distill,
            exporter=cell.exporter,
            kv=cell.kv,
            make=_maker(cell, request, taken),
            leave_out=cell.format == AUTO,
            progress=progress,
        )
    finally:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    return taken


def _maker(cell: Any, request: dict[str, Any], taken: dict[str, Any]) -> Any:
    """What makes the one bundle, and takes down all about it while it is there."""
    from edge.export import pipeline, within
    from edge.runtimes import traffic
    from edge.sweep.results import PASSED, REFUSED

    def look(folder: Path, draft: Any) -> None:
        read = traffic.of(folder, draft)
        taken["bundle"] = _facts(draft)
        taken["traffic"] = None if read is None else read.record() | {"experts": read.experts}

    def each(jobs: Any, order: Any, progress: Any) -> tuple[()]:
        verdict = pipeline.attempt(jobs[0], order, progress, look=look).verdict
        assert verdict is not None
        taken.update(status=PASSED if verdict.passed else REFUSED, **_quality(verdict.record))
        taken["gate"] = {"passed": verdict.passed, "failures": list(verdict.failures)}
        return ()

    if not cell.planned:
        return each
    plans: list[Any] = []
    planned = within.within(
        cell.budget(), _expect(request), across=request["cell"]["format"] == "auto", show=plans.append
    )

    def best(jobs: Any, order: Any, progress: Any) -> tuple[()]:
        [done] = planned(jobs, order, progress)
        look(done.folder, done.bundle)
        record = plans[-1].record()
        taken.update(
            status=PASSED, **_quality(done.bundle.quality), plan={"chosen": record["chosen"], "why": record["why"]}
        )
        taken["gate"] = {"passed": True, "failures": []}
        return ()

    return best


def _expect(request: dict[str, Any]) -> Any:
    from edge.devices.predict import expected
    from edge.devices.profiles import Known
    from edge.sweep.predict import DEPTH

    device = None if request["device"] is None else Known(**request["device"])

    def expect(bundle: Any, read: Any) -> Any:
        length = bundle.context_length
        return expected(bundle, read, device, context_length=length, depth=min(DEPTH, length - 1), **request["here"])

    return expect


def _facts(bundle: Any) -> dict[str, Any]:
    """What predictions need of a manifest, and what names it."""
    return {
        "name": bundle.name, "family": bundle.family, "format": bundle.format, "quantization": bundle.quantization,
        "context_length": bundle.context_length, "size_bytes": bundle.size_bytes, "memory": dict(bundle.memory),
        "source": {name: bundle.source[name] for name in ("parameters", "facts") if name in bundle.source},
    }  # fmt: skip


def _quality(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """How far it is from its source; of a student, or with fewer experts, how far that is comes on top."""
    record = record or {}
    logits = record.get("logits")
    measured = logits if isinstance(logits, dict) else {}
    found = {"mean_kld": measured.get("mean_kld"), "agreement": measured.get("same_top1")}
    made = (record.get("distilled") or {}).get("distance") or record.get("experts_kept")
    if made is not None:
        found["made_kld"] = made["mean_kld"]
    return found


if __name__ == "__main__":
    main()
