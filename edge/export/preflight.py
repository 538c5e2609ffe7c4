"""Refuse before the work starts what cannot finish: memory, disk, time."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge import room
from edge.errors import EdgeError, UsageError
from edge.export import cache
from edge.export.artifact import Need
from edge.export.checkpoint import Checkpoint

_FULL_BYTES = 16 << 20  # a writer that fails leaves less than its last piece would have taken
PASS_BYTES = 512 << 20  # logits that one pass over a streamed source may leave in memory
_STREAMED_BYTES = 2500 << 20  # torch, a runtime, the logits of one pass, hidden states of all its windows
_GATE_POSITIONS, _CALIBRATION_POSITIONS = 3000, 6000
_SHOWN_POSITIONS = 12_000  # of conversations with pictures
_READ_S, _COMPUTE_S = 1.5e-9, 4e-11  # seconds for each parameter: reading it, and one position's product with it
_GATE_BASE_BYTES = 900 << 20  # torch, a runtime and the logits of one window
_PLANNING = "running the source backwards in float32, to plan for a budget,"
_SOURCE = "running the source in float32, to calibrate and to prove,"


def gate_need(checkpoint: Checkpoint) -> Need:
    """What the gate takes: the source in float32, run over some thousand tokens.

    A dense source that does not fit is read layer by layer, some thirty times over for its answers alone.
    """
    n = checkpoint.n_parameters
    if holds_source(checkpoint):
        questions = 20 + 3e-7 * n if checkpoint.family == "vlm" else 0  # about pictures
        return Need(_GATE_BASE_BYTES + 4 * n, disk_bytes=0, time_s=10 + 3e-7 * n + questions, who=_SOURCE)
    return _streamed_need(checkpoint, _GATE_POSITIONS, other_passes=30)


def calibration_need(checkpoint: Checkpoint) -> Need:
    """What measuring activations takes; its time is counted with the format when the source is in memory.

    But for that of conversations with pictures, which come to the text.
    """
    if holds_source(checkpoint):
        n = checkpoint.n_parameters
        seeing = _SHOWN_POSITIONS * n * _COMPUTE_S if checkpoint.family == "vlm" else 0
        return Need(_GATE_BASE_BYTES + 4 * n, disk_bytes=0, time_s=seeing, who=_SOURCE)
    return _streamed_need(checkpoint, _CALIBRATION_POSITIONS, other_passes=0)


def planning_need(checkpoint: Checkpoint) -> Need:
    """What measuring sensitivities takes: the source in float32, a copy to round, the gradient of its largest part.

    Of a source that is read layer by layer: the layer, what is made of it, and its gradient; of an embedding that is
    the head too, two gradients.
    """
    n, windows = checkpoint.n_parameters, 24
    if not holds_source(checkpoint):
        time_s = 10 + n * (2 * windows * _READ_S + windows * 256 * 4 * _COMPUTE_S)
        return Need(_STREAMED_BYTES + 20 * largest_layer(checkpoint), disk_bytes=0, time_s=time_s, who=_PLANNING)
    ram_bytes = _GATE_BASE_BYTES + 8 * n + 4 * largest_layer(checkpoint)
    return Need(ram_bytes, disk_bytes=0, time_s=10 + windows * 256 * 3 * n * _COMPUTE_S, who=_PLANNING)


def _streamed_need(checkpoint: Checkpoint, positions: int, other_passes: int) -> Need:
    """A source that is read layer by layer: a pass for as many positions as leave `PASS_BYTES` of logits."""
    passes = other_passes + 1 + positions * checkpoint.text_config.get("vocab_size", 0) * 4 // PASS_BYTES
    time_s = 10 + checkpoint.n_parameters * (passes * _READ_S + positions * _COMPUTE_S)
    return Need(_STREAMED_BYTES + 8 * largest_layer(checkpoint), disk_bytes=0, time_s=time_s, who=_SOURCE)


def holds_source(checkpoint: Checkpoint) -> bool:
    """Whether the source in float32 takes at most half of the memory that there is now.

    Only dense decoders can be run otherwise; for the rest the answer is yes, and `check` refuses what is too much.
    """
    ram = available_ram_bytes()
    return ram is None or checkpoint.family in ("moe", "vlm") or 8 * checkpoint.n_parameters <= ram


def largest_layer(checkpoint: Checkpoint) -> int:
    """Parameters of the largest layer, or of the embedding if that is larger."""
    sizes: dict[str, int] = {}
    for name, info in checkpoint.tensors.items():
        layer = re.search(r"\.layers\.\d+\.", name)
        key = name[: layer.end()] if layer else name
        sizes[key] = sizes.get(key, 0) + math.prod(info.shape)
    return max(sizes.values(), default=0)


def total(needs: Sequence[Need]) -> Need:
    """Stages run one after another: the largest memory, and who takes it; the sum of disk and time."""
    largest = max(needs, key=lambda n: n.ram_bytes, default=Need(0, 0, 0))
    return Need(
        ram_bytes=largest.ram_bytes,
        who=largest.who,
        disk_bytes=sum(n.disk_bytes for n in needs),
        time_s=sum(n.time_s for n in needs),
    )


def check(need: Need, output: Path, *, time_limit_s: float | None = None) -> None:
    """Raise before anything is written: `EdgeError` for memory or disk, `UsageError` for time."""
    ram = available_ram_bytes()
    if ram is not None and need.ram_bytes > ram:
        raise EdgeError(
            f"not enough memory: {need.who} needs {_gb(need.ram_bytes)}, {_gb(ram)} is available",
            hint="close other programs, export on a larger machine, or choose another format"
            + ("; --no-gate --no-calibration publishes without proof" if need.who == _SOURCE else ""),
        )
    places = {_existing(cache.root()), _existing(output)}
    devices = {os.stat(place).st_dev: place for place in sorted(places)}
    for place in devices.values():
        free = shutil.disk_usage(place).free
        if need.disk_bytes > free and os.stat(_existing(cache.root())).st_dev == os.stat(place).st_dev:
            free += room.make(need.disk_bytes - free)
        if need.disk_bytes > free:
            raise EdgeError(
                f"not enough disk at {place}: this export needs {_gb(need.disk_bytes)}, {_gb(free)} is free",
                hint="free some space (edge cache shows what is kept), or set EDGE_CACHE to a folder on a larger disk",
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
