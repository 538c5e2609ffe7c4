"""SQLite files that keep what they were given: on the disk when a change returns; damaged or full, they say so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import EdgeError, InputError
from edge.runtimes.act.ran import Place

_WAIT_S = 5.0


class Database:
    """A connection. As a context it is one change: all of it is kept, or nothing. Errors are `EdgeError`s."""

    def __init__(self, path: Path, connection: sqlite3.Connection, what: str) -> None:
        self.path, self._what, self.connection = path, what, connection

    def execute(self, sql: str, values: tuple = ()) -> sqlite3.Cursor:
        with self._plainly():
            return self.connection.execute(sql, values)

    def rows(self, sql: str, values: tuple = ()) -> list[tuple]:
        with self._plainly():
            return self.connection.execute(sql, values).fetchall()

    def __enter__(self) -> Database:
        self.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        if kind is None:
            try:
                self.execute("COMMIT")
            except EdgeError:
                self._undo()
                raise
        else:
            self._undo()

    def _undo(self) -> None:
        # SQLite has undone the change itself after some errors; what is on the disk is whole in any case.
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as err:
            raise _said(err, self.path, self._what) from err
        except UnicodeEncodeError as err:
            raise InputError(f"{self._what} keeps text, and that is none: it has half a character in it") from err


def opened(path: Path, tables: str, what: str) -> Database:
    """The database in `path`, made when there is none. Raises `InputError` for a damaged one, which stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        # EXTRA: also the folder's entry of the journal is on the disk before a change is.
        connection.execute("PRAGMA synchronous = EXTRA")
        if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        connection.executescript(tables)
    except (sqlite3.DatabaseError, OSError) as err:
        if connection is not None:
            connection.close()
        raise _said(err, path, what) from err
    return Database(path, connection, what)


def _said(err: Exception, path: Path, what: str) -> EdgeError:
    code = getattr(err, "sqlite_errorname", "")
    if code == "SQLITE_FULL" or (code or "").startswith("SQLITE_IOERR"):
        return EdgeError(f"{what} in {path} is full: {err}", hint="nothing in it was changed; make room on the disk")
    if code in ("SQLITE_BUSY", "SQLITE_LOCKED"):
        return EdgeError(f"{what} in {path} is in use by another program for more than {_WAIT_S:g} s")
    if code in ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM") or isinstance(err, OSError):
        return EdgeError(f"{what} in {path} cannot be written: {err}")
    return InputError(
        f"{what} in {path} is damaged: {err}", hint="the file was left as it is: move it away to begin anew"
    )


def kept_open(place: Place, path: Path, tables: str, what: str) -> Database:
    """The database at `path`, opened at the first call and closed with the hands."""
    if path not in place.kept:
        place.kept[path] = opened(path, tables, what)
        place.closing.callback(place.kept[path].close)
    found: Database = place.kept[path]
    return found
