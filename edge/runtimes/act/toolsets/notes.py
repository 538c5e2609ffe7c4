"""Notes on the device, found again by their words: `--tools notes`, or `notes:FILE.db` for others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtimes.act.database import Database, kept_open
from edge.runtimes.act.ran import Place, ToolError

SETTINGS = {"database": ""}
_TABLES = """
CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, at TEXT NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS note_words USING fts5(text, content='notes', content_rowid='id');
CREATE TRIGGER IF NOT EXISTS notes_in AFTER INSERT ON notes BEGIN
  INSERT INTO note_words (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER IF NOT EXISTS notes_out AFTER DELETE ON notes BEGIN
  INSERT INTO note_words (note_words, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER IF NOT EXISTS notes_edit AFTER UPDATE OF text ON notes BEGIN
  INSERT INTO note_words (note_words, rowid, text) VALUES ('delete', old.id, old.text);
  INSERT INTO note_words (rowid, text) VALUES (new.id, new.text);
END;
"""
_LISTED = 50


def list_notes(place: Place, settings: Mapping[str, Any], n: int = 10) -> str:
    """The last notes, the newest first."""
    rows = _opened(place, settings).rows("SELECT id, text FROM notes ORDER BY id DESC LIMIT ?", (n,))
    return "\n".join(f"{id}: {text}" for id, text in rows) or "there are no notes"


def find_notes(place: Place, settings: Mapping[str, Any], text: str) -> str:
    """Notes that have all these words."""
    words = re.findall(r"\w+", text.lower())
    if not words:
        raise ToolError(f"{text!r} has no words to look for")
    query = " AND ".join(f'"{word}"*' for word in words[:32])
    sql = (
        "SELECT n.id, n.text FROM note_words JOIN notes n ON n.id = note_words.rowid WHERE note_words MATCH ? "
        "ORDER BY n.id DESC LIMIT ?"
    )
    rows = _opened(place, settings).rows(sql, (query, _LISTED))
    return "\n".join(f"{id}: {found}" for id, found in rows) or "no such note"


def add_note(place: Place, settings: Mapping[str, Any], text: str) -> str:
    """Keep a note."""
    with _opened(place, settings) as db:
        stamp = place.now().strftime("%Y-%m-%d %H:%M")
        made = db.execute("INSERT INTO notes (text, at) VALUES (?, ?)", (text, stamp))
    return f"kept as note {made.lastrowid}"


def edit_note(place: Place, settings: Mapping[str, Any], id: int, text: str) -> str:
    """Other words in the place of a note's."""
    with _opened(place, settings) as db:
        if not db.execute("UPDATE notes SET text = ? WHERE id = ?", (text, id)).rowcount:
            raise ToolError(f"there is no note {id}")
    return f"changed note {id}"


def delete_note(place: Place, settings: Mapping[str, Any], id: int) -> str:
    """Delete a note."""
    with _opened(place, settings) as db:
        if not db.execute("DELETE FROM notes WHERE id = ?", (id,)).rowcount:
            raise ToolError(f"there is no note {id}")
    return f"deleted note {id}"


FUNCTIONS = (list_notes, find_notes, add_note, edit_note, delete_note)


def _opened(place: Place, settings: Mapping[str, Any]) -> Database:
    return kept_open(place, Path(settings["database"] or place.state / "notes.db"), _TABLES, "the file of notes")
