"""What was done and what was not, over a loss of power: a step is written down before it begins and when it has ended.

A step that has begun and not ended is unknown: whether it was done cannot be told, and is not guessed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtimes.act.database import opened
from edge.runtimes.act.manifest import Rate

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, request TEXT NOT NULL, started REAL NOT NULL);
CREATE TABLE IF NOT EXISTS steps (
  run TEXT NOT NULL, step INTEGER NOT NULL, tool TEXT NOT NULL, arguments TEXT NOT NULL, open TEXT NOT NULL,
  idempotent INTEGER NOT NULL, state TEXT NOT NULL, started REAL, ended REAL, text TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run, step)
);
CREATE TABLE IF NOT EXISTS starts (tool TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS starts_of_tool ON starts (tool, at);
"""


@dataclass(frozen=True)
class Step:
    """One step of a run. `state`: planned, done, failed, denied or unknown; a step that has begun and not ended is
    unknown. `open` names the arguments that the plan left to earlier steps."""

    step: int
    tool: str
    arguments: Mapping[str, Any]
    open: tuple[str, ...]
    idempotent: bool
    state: str
    text: str


class Journal:
    """The runs in the database file `path`."""

    def __init__(self, path: Path) -> None:
        self._db = opened(path, _TABLES, "the journal")

    def begin(self, run: str, request: str) -> bool:
        """Note the run; false when it was begun before, by a process that may have ended halfway."""
        with self._db as db:
            made = db.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", (run, request, time.time()))
            return made.rowcount == 1

    def request(self, run: str) -> str | None:
        """What the user wanted of this run; None when there is no such run."""
        row = self._db.execute("SELECT request FROM runs WHERE id = ?", (run,)).fetchone()
        return row and row[0]

    def unfinished(self) -> list[str]:
        """Runs that were interrupted, the oldest first: with a step that is still to be done, or has never ended."""
        rows = self._db.execute(
            "SELECT DISTINCT runs.id FROM runs JOIN steps ON steps.run = runs.id "
            "WHERE steps.state IN ('planned', 'begun') ORDER BY runs.started"
        )
        return [row[0] for row in rows]

    def plan(self, run: str, step: int, tool: str, arguments: str, open: tuple[str, ...], *, idempotent: bool) -> None:
        """Note a step that is to be done. One that is noted already stays as it is."""
        with self._db as db:
            db.execute(
                "INSERT OR IGNORE INTO steps (run, step, tool, arguments, open, idempotent, state) "
                "VALUES (?, ?, ?, ?, ?, ?, 'planned')",
                (run, step, tool, arguments, json.dumps(open), idempotent),
            )

    def start(
        self, run: str, step: int, tool: str, arguments: str, *, idempotent: bool, rate: Rate | None = None
    ) -> bool:
        """On the disk when this returns: the step has begun. Not so, and false, when the tool's `rate` is used up."""
        now = time.time()
        with self._db as db:
            # Counted once more, where nobody can begin in between: while a person was asked, others may have run it.
            if rate and self.recent(tool, rate.per_s) >= rate.count:
                return False
            db.execute(
                "INSERT INTO steps (run, step, tool, arguments, open, idempotent, state, started) "
                "VALUES (?, ?, ?, ?, '[]', ?, 'begun', ?) ON CONFLICT (run, step) DO UPDATE SET "
                "arguments = excluded.arguments, state = 'begun', started = excluded.started, ended = NULL",
                (run, step, tool, arguments, idempotent, now),
            )
            db.execute("INSERT INTO starts VALUES (?, ?)", (tool, now))
            db.execute("DELETE FROM starts WHERE at < ?", (now - 2 * 86400,))
            return True

    def end(self, run: str, step: int, state: str, text: str) -> None:
        with self._db as db:
            db.execute(
                "UPDATE steps SET state = ?, ended = ?, text = ? WHERE run = ? AND step = ?",
                (state, time.time(), text, run, step),
            )

    def steps(self, run: str) -> list[Step]:
        """All steps of a run in order, with those that have begun and not ended as unknown."""
        rows = self._db.execute(
            "SELECT step, tool, arguments, open, idempotent, state, text FROM steps WHERE run = ? ORDER BY step", (run,)
        )
        return [
            Step(n, tool, json.loads(arguments), tuple(json.loads(open_)), bool(again),
                 "unknown" if state == "begun" else state, text)
            for n, tool, arguments, open_, again, state, text in rows
        ]  # fmt: skip

    def recent(self, tool: str, per_s: float) -> int:
        """How often `tool` was started in the last `per_s` seconds, by whatever run."""
        sql = "SELECT count(*) FROM starts WHERE tool = ? AND at > ?"
        return self._db.execute(sql, (tool, time.time() - per_s)).fetchone()[0]

    def close(self) -> None:
        self._db.close()
