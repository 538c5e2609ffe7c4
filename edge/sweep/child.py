"""A cell at work in a process of its own, wherever that is: started, listened to, and ended with all it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import edge
from edge.sweep.results import FAILED

COMMAND = (sys.executable, "-m", "edge.sweep.cell_worker")
_LOOK_S = 0.2
_CLEAN_S = 5.0  # for what is stopped to remove its own half-done work
_LOG_CHARACTERS = 4000
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Stopped(Exception):
    """Nobody wants the cell any more; its process has ended."""


def work(
    request: Mapping[str, Any], cores: Sequence[int], *, unwanted: Callable[[], bool],
    told: Callable[[dict[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:  # fmt: skip
    """What came of one cell, run on `cores`; a process that dies is an outcome too. `told` hears its events.

    Raises `Stopped` when it is `unwanted`, which is asked a few times a second.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            start_new_session=True, env=_environment(len(cores)),
        )  # fmt: skip
        ear = threading.Thread(target=_listen, args=(process, found, told), daemon=True)
        try:
            ear.start()
            _ask(process, {**request, "cores": list(cores)})
            while process.poll() is None:
                if unwanted():
                    raise Stopped
                try:
                    process.wait(_LOOK_S)
                except subprocess.TimeoutExpired:
                    pass
        finally:
            _end(process)
            ear.join(_CLEAN_S)
        if "outcome" in found:
            outcome: dict[str, Any] = found["outcome"]
            return outcome if outcome["status"] != FAILED else {**outcome, "log": _tail(log)}
        return {"status": FAILED, **_death(process.returncode), "log": _tail(log)}


def _environment(n_cores: int) -> dict[str, str]:
    own = Path(edge.__file__).parents[1]  # this edge, however it was found
    path = os.pathsep.join(dict.fromkeys([str(own), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    return {
        **os.environ, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1", **dict.fromkeys(_THREADS, str(max(1, n_cores))),
    }  # fmt: skip


def _ask(process: subprocess.Popen, request: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it died before it listened: its end says more
        pass


def _listen(process: subprocess.Popen, found: dict[str, Any], told: Callable[[dict[str, Any]], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # cut short by its death
            continue
        if "outcome" in event:
            found.update(event)
        else:
            told(event)


def _end(process: subprocess.Popen) -> None:
    """It and all that it started: asked to clean up first, then killed. Of one that has ended, what it left behind."""
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        try:
            process.wait(_CLEAN_S)
        except subprocess.TimeoutExpired:
            pass
    _signal(process, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass


def _signal(process: subprocess.Popen, number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def _death(code: int) -> dict[str, str]:
    if code < 0:
        name = signal.Signals(-code).name
        hint = (
            "the system does this when memory runs out: give --jobs 1, or a machine with more"
            if name == "SIGKILL"
            else ""
        )
        return {"why": f"its process was ended by {name}", "hint": hint or "its log says where"}
    return {"why": f"its process ended with code {code} and no result", "hint": "its log says where"}


def _tail(log: Any) -> str:
    log.seek(0)
    return str(log.read().decode(errors="replace")[-_LOG_CHARACTERS:])
