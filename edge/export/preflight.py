"""Refuse before the work starts what cannot finish: memory, disk, time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError, UsageError
from edge.export import cache
from edge.export.artifact import Need
from edge.export.checkpoint import Checkpoint

_FULL_BYTES = 16 << 20  # a writer that fails leaves less than its last piece would have taken
_GATE_BASE_BYTES = 900 << 20  # torch, a runtime and the logits of one window


def gate_need(checkpoint: Checkpoint) -> Need:
    """What calibration and the gate take: the source in float32, run over some thousand tokens."""
    n = checkpoint.n_parameters
    return Need(ram_bytes=_GATE_BASE_BYTES + 4 * n, disk_bytes=0, time_s=10 + 3e-7 * n)


def total(needs: Sequence[Need]) -> Need:
    """Stages run one after another: the largest memory, the sum of disk and time."""
    return Need(
        ram_bytes=max((n.ram_bytes for n in needs), default=0),
        disk_bytes=sum(n.disk_bytes for n in needs),
        time_s=sum(n.time_s for n in needs),
    )


def check(need: Need, output: Path, *, time_limit_s: float | None = None) -> None:
    """Raise before anything is written: `EdgeError` for memory or disk, `UsageError` for time."""
    ram = available_ram_bytes()
    if ram is not None and need.ram_bytes > ram:
        raise EdgeError(
            f"not enough memory: this export needs {_gb(need.ram_bytes)}, {_gb(ram)} is available",
            hint="close other programs, export on a larger machine, or choose another format",
        )
    places = {_existing(cache.root()), _existing(output)}
    devices = {os.stat(place).st_dev: place for place in sorted(places)}
    for place in devices.values():
        free = shutil.disk_usage(place).free
        if need.disk_bytes > free:
            raise EdgeError(
                f"not enough disk at {place}: this export needs {_gb(need.disk_bytes)}, {_gb(free)} is free",
                hint="free some space, or set EDGE_CACHE to a folder on a larger disk",
            )
    if time_limit_s is not None and need.time_s > time_limit_s:
        raise UsageError(
            f"this export takes about {need.time_s / 60:.0f} min, the limit is {time_limit_s / 60:.0f} min",
            hint="give it more time, or ask for fewer formats",
        )


def refuse_full_disk(folder: Path) -> None:
    """Raise `EdgeError` when a converter that failed beside `folder` had no room left to write.

    What the libraries say then is not to be understood ("884736 requested and 323360 written").
    """
    place = _existing(folder)
    if shutil.disk_usage(place).free < _FULL_BYTES:
        raise EdgeError(
            f"the disk at {place} is full",
            hint="free some space, or set EDGE_CACHE to a folder on a larger disk; what was finished is kept",
        )


def available_ram_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """What programs can still take without swapping; `None` where the system does not tell."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
