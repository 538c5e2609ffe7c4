"""What can hold a program to its paths on this machine: Landlock (Linux 5.13), or bubblewrap where it is installed."""

from __future__ import annotations

import ctypes
import functools
import shutil
import sys
from collections.abc import Sequence

from edge.runtimes.act.manifest import Tool

# Programs are run by an executor that confines them; the rest runs in this process and keeps bounds of its own.
_PROGRAMS = ("command", "python", "mcp")


@functools.cache
def by() -> str:
    """`landlock`, `bubblewrap`, or nothing."""
    if sys.platform.startswith("linux"):
        from edge.runtimes.act.confined_worker import landlock_version

        if landlock_version(ctypes.CDLL(None, use_errno=True)):
            return "landlock"
        if shutil.which("bwrap"):
            return "bubblewrap"
    return ""


def of(tool: Tool) -> str:
    """What holds `tool` in bounds; empty for nothing."""
    return by() if tool.kind in _PROGRAMS else "its own code"


def bubblewrapped(argv: Sequence[str], read: Sequence[str], write: Sequence[str], *, network: bool) -> list[str]:
    """`argv` under bubblewrap, with the same system folders as under Landlock."""
    from edge.runtimes.act.confined_worker import SYSTEM

    made = [shutil.which("bwrap") or "/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--dev", "/dev"]
    made += ["--share-net"] if network else []
    for path in (*SYSTEM, argv[0], *read):
        made += ["--ro-bind-try", path, path]
    for path in write:
        made += ["--bind-try", path, path]
    return [*made, "--", *argv]
