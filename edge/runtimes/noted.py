"""What was found out about a bundle on this machine, so that it need not be found out again.

A note is a guess that can be made anew: one that cannot be read is none, and one that cannot be written is not kept.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge import cache, profile
from edge.bundle import Bundle
from edge.find import load


def path(kind: str, bundle: Bundle, **also: Any) -> Path:
    """Where the note of this `kind` lies: it is of this bundle, runtime, machine, choice of cores, and `also`."""
    machine = profile.this_machine()
    name = cache.key(
        bundle=bundle.id, runtime=load("edge.runtimes.engines", bundle.format).build(), node=platform.node(),
        machine=[machine.machine, machine.cpu, machine.ram_bytes, machine.kernel], allowed=sorted(allowed_cpus()),
        **also,
    )  # fmt: skip
    return cache.root() / kind / name


def read(note: Path) -> dict[str, Any]:
    """What was written there; empty where nothing was, or nothing that can be read."""
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(note: Path, found: Mapping[str, Any]) -> None:
    cache.keep(note, json.dumps(found))


def allowed_cpus() -> list[int]:
    """The numbers of those that this process may run on."""
    return list(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
