"""What was decided and why: JSON lines that are only ever added to, and on the disk before anything is done.

Each line has the hash of the one before it: one that was changed or taken out in between shows, unless somebody wrote
all that follow anew. That the last lines are missing does not show: it keeps from slips, and not from a forger.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, InputError

_TAIL_BYTES = 1 << 16


class Audit:
    """The log in the file `path`. Several processes may add to it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: str, **what: Any) -> None:
        """One line, on the disk when this returns. Raises `EdgeError` when it cannot be: nothing may be done then."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                last, whole = _last(handle)
                record = {"at": _now(), "event": event, **what, "after": _hash(last)}
                # Power may have gone in the middle of the last line: what there is of it stays, and ends here.
                line = b"" if whole else b"\n"
                line += json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
                while line:
                    line = line[os.write(handle, line) :]
                os.fsync(handle)
                if new:
                    _entered(self.path.parent)
            finally:
                os.close(handle)
        except OSError as err:
            raise EdgeError(
                f"the audit log {self.path} cannot be written: {err.strerror}",
                hint="nothing was done, for nothing is done that cannot be written down",
            ) from err

    def read(self) -> list[Mapping[str, Any]]:
        """All records, in order. Raises `InputError` when a line was changed, added or taken out afterwards."""
        if not self.path.exists():
            return []
        records: list[Mapping[str, Any]] = []
        before = b""
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
            except ValueError:
                before = line  # it was cut off when the power went
                continue
            if not isinstance(record, dict) or record.get("after") != _hash(before):
                raise InputError(
                    f"{self.path} was changed: line {number} does not follow the one before it",
                    hint="what stands before it is as it was written; move the file away, and a new one is begun",
                )
            records.append(record)
            before = line
        return records


def _entered(folder: Path) -> None:
    """A file's first line is on the disk when its name is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _last(handle: int) -> tuple[bytes, bool]:
    """The last line, and whether it has an end."""
    size, most = os.fstat(handle).st_size, _TAIL_BYTES
    while True:
        tail = os.pread(handle, most, max(0, size - most))
        whole = not tail or tail.endswith(b"\n")
        _, end, last = tail.removesuffix(b"\n").rpartition(b"\n")
        if end or most >= size:
            return last, whole
        most *= 2


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16] if line else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
