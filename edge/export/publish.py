"""A bundle appears under its name whole, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge import bundle
from edge.errors import UsageError
from edge.export import cache

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def publishing(target: Path, *, replace: bool) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its name when the block has written a manifest into it.

    With `replace`, the old bundle stays in place until that moment and is removed after it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    cache.sweep(target.parent)
    work = cache.work_folder(target.parent)
    try:
        yield work
        if (work / bundle.MANIFEST).is_file():
            work.chmod(0o755)
            if replace and target.exists():
                exchange(work, target)
            else:
                refuse_existing(target)
                os.rename(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(target: Path) -> None:
    """Raise `UsageError` when there is something under that name."""
    if target.exists():
        raise UsageError(
            f"{target} is already there", hint="pass --replace to put the new bundle in its place, or another -o"
        )


def exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step (renameat2); where the system cannot, in two."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
        if swap(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
    except (AttributeError, OSError):
        pass
    aside = new.with_name(new.name + "-old")
    os.rename(old, aside)
    os.rename(new, old)
    shutil.rmtree(aside, ignore_errors=True)
