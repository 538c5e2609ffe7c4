"""Waits for timers and rings: a process of its own, one for each database, which ends with the last timer.

python -m edge.runtimes.act.timer_worker DATABASE TERMINAL [PROGRAM WORD...]
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge.runtimes.act.database import Database, opened
from edge.runtimes.act.toolsets.timers import TABLES
from edge.runtimes.act.words import for_person

_LATE_S = 60.0  # later than that, the device was off or asleep when it was due
_LOOK_S = 1.0  # how soon a timer that was set meanwhile is seen
_RING_S = 120.0


def main(argv: Sequence[str]) -> int:
    path, terminal, ring = Path(argv[0]), argv[1], argv[2:]
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    db = opened(path, TABLES, "the file of timers")
    # Looked at once more without the lock: whoever set a timer just now found it held, and relies on this process.
    while _next(db):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            break
        _ring_all(db, terminal, ring)
        fcntl.flock(lock, fcntl.LOCK_UN)
    db.close()
    os.close(lock)
    return 0


def _ring_all(db: Database, terminal: str, ring: Sequence[str]) -> None:
    """Until none is set any more."""
    while due := _next(db):
        time.sleep(max(0.0, min(_LOOK_S, due - time.time())))
        for id, label, at in db.rows(
            "SELECT id, label, due FROM timers WHERE state = 'set' AND due <= ?", (time.time(),)
        ):
            with db:
                rings = db.execute("UPDATE timers SET state = 'rung' WHERE id = ? AND state = 'set'", (id,)).rowcount
            if rings:
                _ring(label, time.time() - at, terminal, ring)


def _next(db: Database) -> float | None:
    return db.rows("SELECT min(due) FROM timers WHERE state = 'set'")[0][0]


def _ring(label: str, late_s: float, terminal: str, ring: Sequence[str]) -> None:
    said = f"{for_person(label)}{f' (late by {late_s / 60:.0f} minutes)' if late_s > _LATE_S else ''}"
    if ring:
        # Its label is somebody's words: with this before it, it is no option of the program.
        _run([*ring, f"timer: {said}"])
        return
    if terminal:
        try:
            with open(terminal, "w") as screen:
                screen.write(f"\a\r\n*** {said} ***\r\n")
        except OSError:
            pass  # the terminal was closed meanwhile
    if notice := shutil.which("notify-send"):
        _run([notice, "--", "edge", said])


def _run(argv: Sequence[str]) -> None:
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=_RING_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
