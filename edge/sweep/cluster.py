"""The cells of a sweep on a Dask cluster: one cell at a time for each worker, in a process that the worker starts.

A worker must have the same edge with the same libraries, and reach the sources: by path, by hub id, or built in. It
keeps stages in its own cache. Whoever may talk to the scheduler may run programs on its workers: that is Dask's nature,
so such a cluster belongs into a network that one trusts.
"""

from __future__ import annotations

import logging
import re
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any

from edge.errors import EdgeError, UsageError, require
from edge.progress import Progress
from edge.sweep.order import Place, Running
from edge.sweep.prepare import Task, edition

_TCP = "tcp://"
_CONNECT_S = 10.0
_GREETING_BYTES = 1 << 20  # that of 2026 has about 300
_WORKERS_S = 60.0  # for a first worker to appear, and for another one when all have gone
_LOOK_S = 0.4
_TALKATIVE = ("distributed", "tornado", "asyncio")  # they tell with tracebacks what we say in a line


class Cluster:
    """The workers behind a scheduler's address, those that come and go meanwhile included.

    Raises `EdgeError` when the scheduler cannot be reached, or goes away, or has no worker that can do the work, and
    `UsageError` for an address that is none.
    """

    def __init__(self, address: str, progress: Progress, *, workers_s: float = _WORKERS_S) -> None:
        require("distributed", extra="sweep", purpose="a sweep on a cluster")
        import distributed

        for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        address = _sound(address)
        self._address, self._progress, self._workers_s = address, progress, workers_s
        try:
            _heard(address)
            self._client: Any = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False, name="edge-sweep")
        except (OSError, ValueError, TimeoutError) as err:
            raise EdgeError(
                f"no scheduler answers at {address}: {(str(err) or type(err).__name__).splitlines()[0]}",
                hint="start one with: dask scheduler; and on each machine: dask worker ADDRESS. "
                "Without --cluster the sweep runs here; results so far are kept",
            ) from err
        self._about: dict[str, dict[str, Any]] = {}  # workers that were asked, by address
        self._futures: dict[str, tuple[Running, Any]] = {}
        self._gone_s: float | None = None
        try:
            self._wait_for_one()
        except BaseException:
            self.close()
            raise

    def places(self) -> list[Place]:
        """The workers that can do the work now."""
        return [_place(address, about, self._about) for address, about in self._fit().items()]

    def start(self, running: Running, request: Mapping[str, Any]) -> None:
        future = self._client.submit(
            _work, dict(request), list(running.cores), workers=[running.place.name], allow_other_workers=False,
            key=f"edge-sweep-{running.task.key}-{uuid.uuid4().hex[:8]}", pure=False, retries=0,
        )  # fmt: skip
        self._futures[running.task.key] = running, future

    def wait(self, timeout_s: float) -> list[tuple[Task, dict[str, Any] | None]]:
        """What has ended; `None` for what was lost with its worker."""
        until = time.monotonic() + timeout_s
        while True:
            ended = self._ended()
            if ended or time.monotonic() >= until:
                return ended
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """Nobody wants what still runs: its workers see that, and end it."""
        try:
            futures = [future for _, future in self._futures.values()]
            if futures and self._client.status == "running":
                self._client.cancel(futures, force=True)
        except (OSError, TimeoutError):  # they see it when the scheduler misses us
            pass
        finally:
            self._client.close(timeout=5)

    def _ended(self) -> list[tuple[Task, dict[str, Any] | None]]:
        there = self._workers()
        found: list[tuple[Task, dict[str, Any] | None]] = []
        for key, (running, future) in list(self._futures.items()):
            if future.status == "finished":
                try:
                    outcome = future.result(timeout=_CONNECT_S)
                except Exception:  # noqa: BLE001 - its worker went while the answer was fetched: the answer is lost
                    outcome = None
            elif future.status == "error":
                outcome = _error(future)
            elif future.status in ("cancelled", "lost") or running.place.name not in there:
                future.cancel()
                outcome = None
            else:
                continue
            del self._futures[key]
            found.append((running.task, outcome))
        self._never_without(self._fit())
        return found

    def _workers(self) -> dict[str, Any]:
        try:
            if self._client.status == "running":
                found: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
                return found
        except Exception as err:  # whatever the library says then, the scheduler is gone
            raise self._lost() from err
        raise self._lost()

    def _lost(self) -> EdgeError:
        return EdgeError(
            f"the scheduler at {self._address} went away",
            hint="results so far are kept: run it again when the scheduler is back, or without --cluster to go on here",
        )

    def _fit(self) -> dict[str, dict[str, Any]]:
        """Workers that have what it takes; what a new one lacks is said once."""
        there = self._workers()
        for address in [a for a in self._about if a not in there]:
            del self._about[address]
        new = [address for address in there if address not in self._about]
        if new:
            answers = self._client.run(_teller(), workers=new, on_error="return")
            for address in new:
                about = answers.get(address, OSError("it does not answer"))
                if isinstance(about, BaseException):
                    about = {"wrong": f"it has no edge that can be used: {type(about).__name__}: {about}"[:300]}
                elif about["edition"] != edition():
                    about["wrong"] = f"its edge {about['edge']}, or a library, is another one than here"
                about = {**about, "seats": there[address]["nthreads"], "ram_bytes": there[address]["memory_limit"]}
                self._about[address] = about
                if "wrong" in about:
                    self._progress.say(f"{address} is not used: {about['wrong']}")
        return {address: about for address, about in self._about.items() if "wrong" not in about}

    def _wait_for_one(self) -> None:
        until = time.monotonic() + self._workers_s
        while not self._fit():
            wrong = [f"{address}: {about['wrong']}" for address, about in self._about.items()]
            if wrong or time.monotonic() > until:
                raise EdgeError(
                    f"the scheduler at {self._address} has no worker that can be used"
                    + "".join(f"\n  {w}" for w in wrong),
                    hint="install the same edge-deploy[export,sweep] there with the same constraints.txt"
                    if wrong
                    else f"start one on each machine: dask worker {self._address}",
                )
            time.sleep(_LOOK_S)

    def _never_without(self, there: Mapping[str, Any]) -> None:
        """Raise when all workers have gone and none comes: a sweep that waits for ever helps nobody."""
        if there:
            self._gone_s = None
            return
        self._gone_s = self._gone_s or time.monotonic()
        if time.monotonic() - self._gone_s > self._workers_s:
            raise EdgeError(
                f"all workers of {self._address} that can be used have gone, and none came in {self._workers_s:.0f} s",
                hint=f"results so far are kept: start some (dask worker {self._address}), and run it again",
            )


def _heard(address: str) -> None:
    """Wait for the first words of a scheduler; raises `OSError` when none come, or others.

    Dask's client waits for them without an end. Whoever accepts a connection says at once how long its greeting is
    (eight bytes, little-endian): what other programs say first, taken as a length, is beyond any greeting.
    """
    host, _, port = address.removeprefix(_TCP).rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as connection:
        said = connection.recv(8, socket.MSG_WAITALL)
    if len(said) < 8 or int.from_bytes(said, "little") > _GREETING_BYTES:
        raise OSError("what listens there is no scheduler")


def _sound(address: str) -> str:
    """`tcp://HOST:PORT`; without the first part it is put there. Dask takes long over one that makes no sense."""
    found = re.fullmatch(r"(?:tcp://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise UsageError(f"{address!r} is no address of a scheduler", hint="write it like this: tcp://127.0.0.1:8786")
    return f"{_TCP}{found[1]}:{found[2]}"


def _place(address: str, about: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Place:
    """A worker; several of one machine have different cores, as many as Dask gives each of them threads."""
    beside = sorted(a for a, o in others.items() if o.get("host") == about["host"])
    first = sum(others[a]["seats"] for a in beside[: beside.index(address)])
    cores = about["cores"]
    own = [cores[(first + i) % len(cores)] for i in range(min(about["seats"], len(cores)))]
    return Place(
        name=address, cache=f"{about['host']}:{about['cache']}", cores=tuple(dict.fromkeys(own)), seats=1,
        ram_bytes=about["ram_bytes"] or None,
    )  # fmt: skip


def _teller() -> Any:
    """What a worker is asked, as a function that needs no edge to arrive there."""

    def tell() -> dict[str, Any]:
        import os
        import socket

        import edge
        from edge.export import cache
        from edge.sweep.prepare import edition

        cores = (
            sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
        )
        return {
            "edge": edge.__version__, "edition": edition(), "host": socket.gethostname(),
            "cache": str(cache.root().absolute()), "cores": cores,
        }  # fmt: skip

    return tell


def _work(request: dict[str, Any], cores: list[int]) -> dict[str, Any]:
    """On the worker: the cell in a process of its own, ended when the scheduler says that nobody wants it any more."""
    from distributed import get_worker

    from edge.sweep import child

    worker = get_worker()
    key = worker.get_current_task()

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status.name not in ("running", "paused")

    try:
        return child.work(request, cores, unwanted=unwanted)
    except child.Stopped:
        return {"status": "stopped"}


def _error(future: Any) -> dict[str, Any] | None:
    """What Dask itself says of a task; that its worker died is a loss, all else is its failure."""
    from distributed import KilledWorker

    error = future.exception(timeout=_CONNECT_S)
    if isinstance(error, KilledWorker):
        return None
    return {"status": "failed", "why": f"its worker says {type(error).__name__}: {error}"[:2000]}
