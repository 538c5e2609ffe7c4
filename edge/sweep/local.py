"""The cells of a sweep as processes on this machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any

from edge.export import cache, preflight
from edge.runtimes.cores import physical_cores
from edge.sweep import child
from edge.sweep.order import Place, Running
from edge.sweep.prepare import Task
from edge.sweep.results import FAILED


class Local:
    """At most `jobs` at once (default: a core for each), and as many as memory holds."""

    def __init__(self, jobs: int | None = None) -> None:
        cores = _cores()
        self._place = Place(
            name="this machine",
            cache=str(cache.root()),
            cores=cores,
            seats=jobs or physical_cores(),
            ram_bytes=preflight.available_ram_bytes(),
        )
        self._ended: queue.Queue[tuple[Task, dict[str, Any] | None]] = queue.Queue()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def places(self) -> list[Place]:
        return [self._place]

    def start(self, running: Running, request: Mapping[str, Any]) -> None:
        def work() -> None:
            try:
                outcome = child.work(request, running.cores, unwanted=self._stop.is_set)
            except child.Stopped:
                return
            except Exception as err:  # noqa: BLE001 - no process, no file for its log: a sweep must not wait for ever
                outcome = {"status": FAILED, "why": f"it could not be started: {type(err).__name__}: {err}"}
            self._ended.put((running.task, outcome))

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, timeout_s: float) -> list[tuple[Task, dict[str, Any] | None]]:
        """What has ended: each with its outcome."""
        try:
            return [self._ended.get(timeout=timeout_s)]
        except queue.Empty:
            return []

    def close(self) -> None:
        """End what still runs."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _cores() -> tuple[int, ...]:
    import os

    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
