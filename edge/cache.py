"""Where finished work is kept: a folder per content hash, published by one rename."""

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


def root() -> Path:
    """`$EDGE_CACHE`, or `$XDG_CACHE_HOME/edge`, or `~/.cache/edge`."""
    if home := os.environ.get("EDGE_CACHE"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge"


def key(**parts: Any) -> str:
    """Twenty hex digits that change when any part changes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def find(kind: str, name: str) -> Path | None:
    """The finished folder, if there is one; its time says from then on when it was last asked for."""
    folder = root() / kind / name
    try:
        os.utime(folder)
    except FileNotFoundError:
        return None
    except OSError:  # a cache that may only be read
        pass
    return folder if folder.is_dir() else None


def keep(note: Path, text: str) -> None:
    """Write a note that can be done without, whole or not at all: a home that cannot be written to keeps none."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_name(f"{note.name}.{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        os.replace(part, note)
    except OSError:
        pass


def discard(kind: str, name: str) -> None:
    """Forget a finished folder: it is gone from its place at once, and then file by file; half of it is never found."""
    place = root() / kind / name
    try:
        work = work_folder(place.parent)
        try:
            os.rename(place, work / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except FileNotFoundError:
        pass


@contextmanager
def building(kind: str, name: str) -> Iterator[Path]:
    """A private folder that becomes `root()/kind/name` when the block ends well.

    A killed or failed block leaves nothing under that name; when two processes build the
    same thing, the first to finish is kept.
    """
    final = root() / kind / name
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final.parent)
    work = work_folder(final.parent)
    try:
        yield work
        try:
            os.rename(work, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def work_folder(parent: Path) -> Path:
    """A private folder on the same disk as what it will become; `sweep` knows it by its name."""
    return Path(tempfile.mkdtemp(prefix=f".edge-{os.getpid()}-", dir=parent))


def sweep(parent: Path) -> None:
    """Remove the work folders of processes that were killed."""
    for path in parent.glob(".edge-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
