"""What was done and learned, kept on the device: told, found again by its words, changed and forgotten."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import UsageError
from edge.runtimes.act.database import opened
from edge.runtimes.act.words import for_person

LIMIT_CHARACTERS = 8000
_TABLES = """
CREATE TABLE IF NOT EXISTS memories (
  id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, origin TEXT NOT NULL, at REAL NOT NULL
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
  text, content='memories', content_rowid='id', tokenize='unicode61 remove_diacritics 2'
);
CREATE TRIGGER IF NOT EXISTS memories_in AFTER INSERT ON memories BEGIN
  INSERT INTO words (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER IF NOT EXISTS memories_out AFTER DELETE ON memories BEGIN
  INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER IF NOT EXISTS memories_edit AFTER UPDATE OF text ON memories BEGIN
  INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
  INSERT INTO words (rowid, text) VALUES (new.id, new.text);
END;
"""


@dataclass(frozen=True)
class Recollection:
    """Something remembered. `origin` says whose words it holds (user, tool, file); `at` is in seconds since 1970."""

    id: int
    text: str
    origin: str
    at: float


class Memory:
    """The memories in the database file `path`.

    Raises `EdgeError` when the disk is full and `InputError` when the file is damaged; nothing that was kept is lost.
    """

    def __init__(self, path: Path) -> None:
        self._db = opened(path, _TABLES, "the memory")

    def remember(self, text: str, *, origin: str = "user") -> int:
        """Keep `text`; its number comes back. The same words from the same origin are kept once."""
        text = _checked(text)
        with self._db as db:
            again = db.rows("SELECT id FROM memories WHERE text = ? AND origin = ?", (text, origin))
            if again:
                db.execute("UPDATE memories SET at = ? WHERE id = ?", (time.time(), again[0][0]))
                return again[0][0]
            made = db.execute("INSERT INTO memories (text, origin, at) VALUES (?, ?, ?)", (text, origin, time.time()))
            assert made.lastrowid is not None
            return made.lastrowid

    def recall(self, text: str, n: int = 3) -> list[Recollection]:
        """The `n` memories that have the most, and the rarest, words of `text`; the best first."""
        words = dict.fromkeys(re.findall(r"\w+", text.lower()))
        if not words:
            return []
        # Quoted, a word is a word, whatever it means in the query language.
        query = " OR ".join(f'"{word}"' for word in list(words)[:64])
        sql = (
            "SELECT m.id, m.text, m.origin, m.at FROM words JOIN memories m ON m.id = words.rowid "
            "WHERE words MATCH ? ORDER BY bm25(words), m.at DESC LIMIT ?"
        )
        return [Recollection(*row) for row in self._db.rows(sql, (query, n))]

    def list(self, n: int = -1) -> list[Recollection]:
        """The last `n`, or all, the newest first."""
        sql = "SELECT id, text, origin, at FROM memories ORDER BY at DESC, id DESC LIMIT ?"
        return [Recollection(*row) for row in self._db.rows(sql, (n,))]

    def edit(self, id: int, text: str) -> None:
        """Other words in their place, which are the user's now. Raises `UsageError` when there is no such memory."""
        text = _checked(text)
        with self._db as db:
            _found(db.execute("UPDATE memories SET text = ?, origin = 'user' WHERE id = ?", (text, id)).rowcount, id)

    def forget(self, id: int) -> None:
        """Raises `UsageError` when there is no such memory. What was forgotten is overwritten in the file."""
        self._db.execute("PRAGMA secure_delete = ON")
        with self._db as db:
            _found(db.execute("DELETE FROM memories WHERE id = ?", (id,)).rowcount, id)
            db.execute("INSERT INTO words (words) VALUES ('optimize')")

    def close(self) -> None:
        self._db.close()


def obey(memory: Memory, words: Sequence[str]) -> list[str]:
    """Do `list`, `edit N TEXT`, `forget N` or `forget all`; the lines to show. Raises `UsageError` for others."""
    action, *rest = words
    lines: list[str] = []
    if action == "list" and not rest:
        lines = [f"{kept.id:5}  {kept.origin:4}  {for_person(kept.text)}" for kept in reversed(memory.list())]
    elif action == "edit" and len(rest) >= 2 and rest[0].isdigit():
        memory.edit(int(rest[0]), " ".join(rest[1:]))
    elif action == "forget" and rest == ["all"]:
        for kept in memory.list():
            memory.forget(kept.id)
    elif action == "forget" and rest and all(n.isdigit() for n in rest):
        for n in rest:
            memory.forget(int(n))
    else:
        raise UsageError(
            f"cannot do {' '.join(words)!r} with what is remembered",
            hint="there are: list, edit N TEXT, forget N, forget all",
        )
    return lines


def _checked(text: str) -> str:
    text = text.strip()
    if not text or len(text) > LIMIT_CHARACTERS:
        raise UsageError(f"a memory has 1 to {LIMIT_CHARACTERS} characters, not {len(text)}")
    return text


def _found(count: int, id: int) -> None:
    if not count:
        raise UsageError(f"there is no memory {id}", hint="list them to see their numbers")
