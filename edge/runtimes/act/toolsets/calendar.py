"""A calendar on the device: `--tools calendar`, or `calendar:FILE.db` for another one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edge.runtimes.act.database import Database, kept_open
from edge.runtimes.act.moments import day, moment
from edge.runtimes.act.ran import Place, ToolError

SETTINGS = {"database": ""}
_TABLES = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, start TEXT NOT NULL, minutes INTEGER NOT NULL,
  place TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_start ON events (start);
"""
_LISTED = 50


def list_events(place: Place, settings: Mapping[str, Any], on: str = "today", days: int = 1) -> str:
    """Appointments of a day, or of several from that day on, the first one first."""
    begin = day(on, place.now())
    end = begin + timedelta(days=days)
    sql = "SELECT id, title, start, minutes, place FROM events WHERE start >= ? AND start < ? ORDER BY start LIMIT ?"
    rows = _opened(place, settings).rows(sql, (begin.isoformat(), end.isoformat(), _LISTED))
    return "\n".join(_line(*row) for row in rows) or f"nothing on {begin}" + (f" to {end}" if days > 1 else "")


def find_events(place: Place, settings: Mapping[str, Any], text: str) -> str:
    """Appointments to come that have these words in their title or place."""
    like = f"%{text.replace('%', '').replace('_', '')}%"
    sql = (
        "SELECT id, title, start, minutes, place FROM events WHERE start >= ? AND (title LIKE ? OR place LIKE ?) "
        "ORDER BY start LIMIT ?"
    )
    rows = _opened(place, settings).rows(sql, (place.now().date().isoformat(), like, like, _LISTED))
    return "\n".join(_line(*row) for row in rows) or "no such appointment"


def add_event(
    place: Place, settings: Mapping[str, Any], title: str, start: str, minutes: int = 60, where: str = ""
) -> str:
    """Add an appointment."""
    at = moment(start, place.now())
    with _opened(place, settings) as db:
        made = db.execute(
            "INSERT INTO events (title, start, minutes, place) VALUES (?, ?, ?, ?)",
            (title, _stamp(at), minutes, where),
        )
    return f"added {_line(made.lastrowid or 0, title, _stamp(at), minutes, where)}"


def move_event(place: Place, settings: Mapping[str, Any], id: int, start: str) -> str:
    """Give an appointment another time."""
    at = moment(start, place.now())
    with _opened(place, settings) as db:
        if not db.execute("UPDATE events SET start = ? WHERE id = ?", (_stamp(at), id)).rowcount:
            raise ToolError(f"there is no appointment {id}")
    return f"moved appointment {id} to {_stamp(at)}"


def delete_event(place: Place, settings: Mapping[str, Any], id: int) -> str:
    """Delete an appointment."""
    with _opened(place, settings) as db:
        if not db.execute("DELETE FROM events WHERE id = ?", (id,)).rowcount:
            raise ToolError(f"there is no appointment {id}")
    return f"deleted appointment {id}"


FUNCTIONS = (list_events, find_events, add_event, move_event, delete_event)


def _opened(place: Place, settings: Mapping[str, Any]) -> Database:
    return kept_open(place, Path(settings["database"] or place.state / "calendar.db"), _TABLES, "the calendar")


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")


def _line(id: int, title: str, start: str, minutes: int, where: str) -> str:
    return f"{id}: {start} {title}, {minutes} minutes{f', {where}' if where else ''}"
