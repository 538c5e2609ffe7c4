"""What exports keep, by content hash: `edge.cache`, with hashes of checkpoints and of the code that converts them."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
from pathlib import Path

import edge
from edge.bundle import sha256_of
from edge.cache import building, discard, find, key, root, sweep, work_folder

__all__ = ["building", "code_of", "discard", "find", "hash_of", "key", "libraries", "root", "sweep", "work_folder"]

_ROOT = Path(edge.__file__).parent


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


def code_of(module: str) -> str:
    """A hash over the source of `module` and all of `edge` that it imports, directly or not.

    Part of a stage's key: what changed code would make anew is never taken from the cache.
    """
    seen: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and (read := _read(name)):
            seen[name], imported = read
            waiting += imported
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + seen[name])
    return digest.hexdigest()[:20]


@functools.cache
def _read(name: str) -> tuple[bytes, tuple[str, ...]] | None:
    """The source of a module and what of `edge` it imports; `None` for what is no module."""
    path = _ROOT.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return None
    source, imported = path.read_bytes(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [a.name for a in node.names if a.name.startswith("edge.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edge":
            imported += [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
    return source, tuple(imported)


@functools.cache
def libraries() -> dict[str, str]:
    """Versions of what exports are made with, as our own metadata lists them."""
    versions = {"edge": edge.__version__}
    try:
        requirements = importlib.metadata.requires("edge-deploy") or []
    except importlib.metadata.PackageNotFoundError:
        return versions
    for requirement in requirements:
        distribution = requirement.split(";")[0].split("[")[0].split("=")[0].split(">")[0].strip()
        if 'extra == "export"' in requirement and distribution != "edge-deploy":
            try:
                versions[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
    return versions
