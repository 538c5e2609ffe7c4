"""Where finished stages are kept: a folder per content hash, published by one rename."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import edge
from edge.bundle import sha256_of

_ROOT = Path(edge.__file__).parent


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


def discard(kind: str, name: str) -> None:
    """Forget a finished folder that turned out to be damaged."""
    shutil.rmtree(root() / kind / name, ignore_errors=True)


def code_of(module: str) -> str:
    """A hash over the source of `module` and all of `edge` that it imports, directly or not.

    Part of a stage's key: what changed code would make anew is never taken from the cache.
    """
    seen: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        path = _ROOT.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file():
            continue
        seen[name] = path.read_bytes()
        for node in ast.walk(ast.parse(seen[name])):
            if isinstance(node, ast.Import):
                waiting += [a.name for a in node.names if a.name.startswith("edge.")]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edge":
                waiting += [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + seen[name])
    return digest.hexdigest()[:20]


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
