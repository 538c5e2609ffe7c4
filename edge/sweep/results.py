"""`results.jsonl`: a line for each cell that was done, added whole; the last one of a cell counts."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

FILE = "results.jsonl"
SCHEMA_VERSION = 1
PASSED, REFUSED, IMPOSSIBLE, FAILED = "passed", "refused", "impossible", "failed"
# What is not tried again: a measurement, or a budget that nothing fits. What failed may succeed another time.
DONE = (PASSED, REFUSED, IMPOSSIBLE)


class Results:
    """The lines in `folder`, which belongs to one sweep at a time.

    Raises `UsageError` while another one writes there, and `InputError` for a line that is none.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise UsageError(
                f"another sweep writes to {self.path}", hint="wait until it is done, or give another place with -o"
            ) from None
        try:
            self._by_key = lines(self.path)
            text = self.path.read_bytes()
            os.ftruncate(self._handle, text.rfind(b"\n") + 1)  # what a full disk or a power cut left of a line
        except BaseException:
            os.close(self._handle)
            raise

    def get(self, key: str) -> dict[str, Any] | None:
        """The last line of a cell."""
        return self._by_key.get(key)

    def done(self, key: str) -> bool:
        """Whether a cell need not be done again."""
        return self._by_key.get(key, {}).get("status") in DONE

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a line: all of it at once, so that a kill leaves it out or whole."""
        line = json.dumps({"schema_version": SCHEMA_VERSION, **record}, ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode()
        if os.write(self._handle, data) != len(data):
            raise OSError(28, "No space left on device", str(self.path))
        os.fsync(self._handle)
        self._by_key[record["key"]] = dict(record)

    def close(self) -> None:
        os.close(self._handle)


def lines(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each cell, by key; none without a file. Half a line at the end is left out."""
    text = path.read_bytes() if path.is_file() else b""
    found: dict[str, dict[str, Any]] = {}
    for n, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
        try:
            record = json.loads(line)
            version, key = record["schema_version"], str(record["key"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(
                f"{path}, line {n}: this is no line of a sweep", hint="take it out, or give another -o"
            ) from None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}, line {n}: schema {version!r}, this edge writes {SCHEMA_VERSION}", hint="give another -o"
            )
        found[key] = record
    return found
