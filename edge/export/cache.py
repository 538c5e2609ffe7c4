"""Where finished stages are kept: a folder per content hash, published by one rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.bundle import sha256_of


def root() -> Path:
    """`$EDGE_CACHE`, or `$XDG_CACHE_HOME/edge`, or `~/.cache/edge`."""
    if home := os.environ.get("EDGE_CACHE"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge"


def key(**parts: Any) -> str:
    """Twenty hex digits that change when any part changes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def find(kind: str, name: str) -> Path | None:
    """The finished folder, if there is one."""
    folder = root() / kind / name
    return folder if folder.is_dir() else None


def hash_of(path: Path) -> str:
    """sha256 of a file, remembered by size, times and inode: a large checkpoint is read once."""
    stat = path.stat()
    name = key(
        path=str(path.resolve()), size=stat.st_size, mtime=stat.st_mtime_ns, ctime=stat.st_ctime_ns, inode=stat.st_ino
    )
    note = root() / "hashes" / name
    if note.is_file():
        return note.read_text()
    digest = sha256_of(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f"{name}.{os.getpid()}")
    part.write_text(digest)
    os.replace(part, note)
    return digest


@contextmanager
def building(kind: str, name: str) -> Iterator[Path]:
    """A private folder that becomes `root()/kind/name` when the block ends well.

    A killed or failed block leaves nothing under that name; when two processes build the
    same thing, the first to finish is kept.
    """
    final = root() / kind / name
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.{os.getpid()}.", dir=final.parent))
    try:
        yield work
        try:
            os.rename(work, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind: work folders whose process is gone."""
    for path in folder.glob(".*.*.*"):
        pid = path.name.rsplit(".", 2)[-2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
