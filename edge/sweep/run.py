"""A sweep from its first cell to its last: start what can start, write a line for what has ended."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import edge
from edge.devices.profiles import Known
from edge.progress import Progress
from edge.sweep.cell import Cell
from edge.sweep.order import Place, Running, next_start
from edge.sweep.predict import predictions
from edge.sweep.prepare import Share, Task, Unfit
from edge.sweep.results import DONE, FAILED, Results

_LOOK_S = 1.0
_LOST = 3  # places that may die under a cell before it is thought to be the reason


class Crew(Protocol):
    """Who does the work. `wait` gives what has ended, with `None` for an outcome that was lost with its place."""

    def places(self) -> Sequence[Place]: ...
    def start(self, running: Running, request: Mapping[str, Any]) -> None: ...
    def wait(self, timeout_s: float) -> list[tuple[Task, dict[str, Any] | None]]: ...
    def close(self) -> None: ...


def run(
    tasks: Sequence[Task | Unfit], results: Results, crew: Crew, devices: Mapping[str, Known | None],
    here: Mapping[str, Any], progress: Progress,
) -> None:  # fmt: skip
    """Do the cells that have no line yet. What fails is a line as well; the lines so far are kept whatever happens."""
    waiting: list[Task] = []
    for task in tasks:
        if isinstance(task, Unfit):
            outcome = {"status": FAILED, "why": task.error.message, "hint": task.error.hint}
            results.add(_line(task.key, task.cell, outcome, "", devices, here))
        elif not results.done(task.key):
            waiting.append(task)
        else:
            _predict_new(task.key, results, devices, here)
    total, n = len(waiting), 0
    progress.start(f"{total} cells", total)
    running: dict[str, Running] = {}
    made: dict[str, set[Share]] = {}
    lost: dict[str, int] = {}
    try:
        while waiting or running:
            while start := next_start(waiting, running.values(), crew.places(), made):
                waiting.remove(start.task)
                running[start.task.key] = start
                crew.start(start, _request(start.task, devices, here))
            for task, found in crew.wait(_LOOK_S):
                where = running.pop(task.key).place
                if found is None:
                    lost[task.key] = lost.get(task.key, 0) + 1
                    if lost[task.key] < _LOST:
                        progress.say(f"{where.name} is gone; {_name(task)} is done again elsewhere")
                        waiting.insert(0, task)
                        continue
                outcome = found or _given_up()
                if outcome["status"] in DONE:
                    made.setdefault(where.cache, set()).update(task.shares)
                line = _line(task.key, task.cell, outcome, where.name, devices, here)
                results.add(line)
                n += 1
                progress.advance(n)
                progress.say(f"{n} of {total}  {_name(task)}: {_said(line)}")
    finally:
        crew.close()


def _given_up() -> dict[str, Any]:
    return {
        "status": FAILED, "why": f"{_LOST} workers were lost while they made it",
        "hint": "look at the workers' own logs; too little memory is a usual reason",
    }  # fmt: skip


def _request(task: Task, devices: Mapping[str, Known | None], here: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of a cell is told. A device goes as what is known of it: its file need not be there."""
    from edge.devices import profiles
    from edge.sweep.recipe import HERE

    name = task.cell.device
    known = None if name in (None, HERE) else profiles.read(str(name))
    asked = "min-tokens-per-second" in dict(task.cell.bounds) or name == HERE
    return {
        "cell": task.cell.record(),
        "source": task.source,
        "device": None if known is None else asdict(known),
        "here": dict(here) if known is None and asked else {},
    }


def _line(
    key: str, cell: Cell, outcome: Mapping[str, Any], where: str, devices: Mapping[str, Known | None],
    here: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    line = {
        "key": key, "model": cell.model, "label": cell.label, "cell": cell.record(), "command": cell.command,
        "size_bytes": outcome.get("bundle", {}).get("size_bytes"), **outcome,
        "where": where, "edge": edge.__version__,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    return {**line, "predictions": predictions(line, devices, here)}


def _predict_new(key: str, results: Results, devices: Mapping[str, Known | None], here: Mapping[str, Any]) -> None:
    """A line that is there, for devices that were not asked about before, or of which something else is known now."""
    line = results.get(key)
    if line is None or "bundle" not in line:
        return
    had = line["predictions"]
    # What was measured of this machine differs from run to run, and stays as it was.
    asked = {name: device for name, device in devices.items() if device is not None or name not in had}
    found = {**had, **predictions(line, asked, here)}
    if found != had:
        results.add({**line, "predictions": found})


def _name(task: Task) -> str:
    return f"{task.cell.model} {task.cell.label}"


def _said(line: Mapping[str, Any]) -> str:
    took = f" ({line['time_s']:.0f} s)" if "time_s" in line else ""
    if line.get("mean_kld") is None:
        return f"{line['status']}: {line.get('why', 'not compared')}{took}"
    return f"{line['status']}, {line['size_bytes'] / 1e6:.1f} MB, mean KLD {line['mean_kld']:.2g}{took}"
