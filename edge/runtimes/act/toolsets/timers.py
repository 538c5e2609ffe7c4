"""Timers that ring, also when nobody talks to the model any more: `--tools timers`.

    [toolsets]
    timers = { ring = ["/usr/bin/aplay", "/usr/share/sounds/alarm.wav"] }

A small process waits for them and ends with the last one. What was due while the power was off rings late, and says so.
Without `ring`, the terminal's bell rings, and the desktop shows a notice where there is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtimes.act import interpreter
from edge.runtimes.act.database import Database, kept_open
from edge.runtimes.act.moments import moment, span_s
from edge.runtimes.act.ran import Place, ToolError

SETTINGS = {"database": "", "ring": []}
TABLES = """
CREATE TABLE IF NOT EXISTS timers (
  id INTEGER PRIMARY KEY AUTOINCREMENT, label TEXT NOT NULL, due REAL NOT NULL, state TEXT NOT NULL DEFAULT 'set'
);
"""


def set_timer(place: Place, settings: Mapping[str, Any], after: str, label: str = "timer") -> str:
    """Ring after a while."""
    return _set(place, settings, place.now().timestamp() + span_s(after), label)


def set_alarm(place: Place, settings: Mapping[str, Any], at: str, label: str = "alarm") -> str:
    """Ring at a time."""
    now = place.now()
    due = moment(at, now)
    if due <= now:
        raise ToolError(f"{due:%Y-%m-%d %H:%M} is over")
    return _set(place, settings, due.timestamp(), label)


def list_timers(place: Place, settings: Mapping[str, Any]) -> str:
    """Timers and alarms that have not rung."""
    _wait(place, settings)
    rows = _opened(place, settings).rows("SELECT id, label, due FROM timers WHERE state = 'set' ORDER BY due")
    now = place.now().timestamp()
    return "\n".join(f"{id}: {label}, in {_spoken(due - now)}" for id, label, due in rows) or "no timer is set"


def cancel_timer(place: Place, settings: Mapping[str, Any], id: int) -> str:
    """Take a timer or an alarm back."""
    with _opened(place, settings) as db:
        if not db.execute("UPDATE timers SET state = 'off' WHERE id = ? AND state = 'set'", (id,)).rowcount:
            raise ToolError(f"no timer {id} is set")
    return f"timer {id} is off"


FUNCTIONS = (set_timer, set_alarm, list_timers, cancel_timer)


def _set(place: Place, settings: Mapping[str, Any], due: float, label: str) -> str:
    left = _spoken(due - place.now().timestamp())
    _ring(settings)  # before it is kept: one that cannot ring is not set
    with _opened(place, settings) as db:
        made = db.execute("INSERT INTO timers (label, due) VALUES (?, ?)", (label, due))
    _wait(place, settings)
    return f"timer {made.lastrowid}, {label}, rings in {left}"


def _ring(settings: Mapping[str, Any]) -> list[str]:
    """What rings. Raises `ToolError` when that is no program, or none that is here."""
    ring: list[str] = settings["ring"]
    if not all(isinstance(word, str) for word in ring):
        raise ToolError(f"ring of the timers must be a list of words, the program first, not {ring!r}")
    if ring and shutil.which(ring[0]) is None:
        raise ToolError(f"nothing would ring: the program {ring[0]} is not installed here")
    return ring


def _wait(place: Place, settings: Mapping[str, Any]) -> None:
    """Let a process wait for what is set; a second one ends at once, since the first has the lock."""
    ring = _ring(settings)
    terminal = os.ttyname(2) if os.isatty(2) else ""
    package = Path(__file__).parents[4]
    subprocess.Popen(
        [*interpreter.argv(), "-m", "edge.runtimes.act.timer_worker", str(_path(place, settings)), terminal, *ring],
        cwd=package, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def _path(place: Place, settings: Mapping[str, Any]) -> Path:
    return Path(settings["database"] or place.state / "timers.db")


def _opened(place: Place, settings: Mapping[str, Any]) -> Database:
    return kept_open(place, _path(place, settings), TABLES, "the file of timers")


def _spoken(seconds: float) -> str:
    whole = max(0, round(seconds))
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"
