"""Every disk that a power cut could have left behind, made from a log of all that a machine told its disk.

A disk with a cache may lose whatever it was given after the last flush that it answered, in any order and in part. So a
cut after the k-th write leaves: all writes up to that flush, and of each later one every 4 KiB of it or not, by chance.
ext4 of this machine's kernel then recovers the disk, as the device's would at its next start.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.card import MIB, ROOT_START_MIB

_SECTOR = 512
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_PIECE = 4096


@dataclass(frozen=True)
class Write:
    """`size` bytes at `offset` of the disk, which lie at `at` in the log; a flush has none.

    Its entry in the log is between `begun` and `end`.
    """

    offset: int
    size: int
    at: int
    flush: bool
    begun: int
    end: int


def missing() -> str | None:
    """Why disks cannot be recovered here; `None` when they can."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return "to recover a disk as a kernel does, it has to be mounted: that takes root and loop devices"
    return None


def read(log: Path) -> list[Write]:
    """The log that qemu's `blklogwrites` wrote, which is that of the kernel's dm-log-writes."""
    found: list[Write] = []
    with log.open("rb") as file:
        magic, _, count = struct.unpack("<QQQ", file.read(24))
        if magic != 0x6A736677736872:
            raise ValueError(f"{log} is no log of writes")
        at = _SECTOR
        for _ in range(count):
            file.seek(at)
            sector, sectors, flags, _ = struct.unpack("<QQQQ", file.read(32))
            data = 0 if flags & _DISCARD else sectors * _SECTOR
            end = at + _SECTOR + data
            if not flags & _DISCARD:
                found.append(Write(sector * _SECTOR, data, at + _SECTOR, bool(flags & (_FLUSH | _FUA)), at, end))
            at = end
    return found


def disks(
    base: Path, log: Path, cuts: Sequence[int], folder: Path, chance: random.Random
) -> Iterator[tuple[int, Path]]:
    """For each of the writes `cuts`, in order: the disk that a cut right after it could have left. `base` is before.

    Each disk is gone when the next one is asked for.
    """
    writes = read(log)
    durable, left = folder / "durable.img", folder / "left.img"
    _copy(base, durable)
    done = 0
    try:
        with log.open("rb") as source, durable.open("r+b") as disk:
            for cut in sorted(cuts):
                flushed = max((i for i in range(cut, done - 1, -1) if writes[i].flush), default=done)
                for write in writes[done:flushed]:
                    _apply(source, disk, write, None)
                done = max(done, flushed)
                disk.flush()
                _copy(durable, left)
                with left.open("r+b") as lossy:
                    for write in writes[done : cut + 1]:
                        _apply(source, lossy, write, chance)
                yield cut, left
    finally:  # also when nobody asks for the rest
        for disk_image in (left, durable):
            disk_image.unlink(missing_ok=True)


def _apply(source, disk, write: Write, chance: random.Random | None) -> None:  # type: ignore[no-untyped-def]
    source.seek(write.at)
    data = source.read(write.size)
    keep = chance.random() if chance else 1.0  # some cuts lose nearly all of it, some nearly nothing
    for start in range(0, len(data), _PIECE):
        if chance is None or chance.random() < keep:
            disk.seek(write.offset + start)
            disk.write(data[start : start + _PIECE])


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """The root partition of a card, mounted by this kernel, which recovers its journal first."""
    place = Path(tempfile.mkdtemp(prefix="edge-cut-"))
    options = f"loop,offset={ROOT_START_MIB * MIB}"
    done = subprocess.run(
        ["mount", "-t", "ext4", "-o", options, str(image), str(place)], capture_output=True, text=True
    )
    try:
        if done.returncode:
            raise OSError(f"what the cut left cannot be mounted: {done.stderr.strip()}")
        yield place
    finally:
        if not done.returncode:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)
