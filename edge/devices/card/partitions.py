"""The partition table of an image: MBR, as Raspberry Pi OS has it, or GPT, as Debian's cloud images have."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge.errors import InputError

_SECTOR = 512
_PACKED = {b"\xfd7zXZ\0": "xz -dk", b"\x1f\x8b": "gzip -dk", b"PK\x03\x04": "unzip", b"\x28\xb5\x2f\xfd": "zstd -dk"}
_MBR_AT, _MBR_LINES, _MBR_LINE = 446, 4, 16
_PROTECTIVE = 0xEE  # what an MBR says where a GPT follows
_GPT_MOST, _GPT_LINE, _GPT_LAST = 1024, 4096, 1 << 40  # partitions, bytes of a line, where the table may begin


@dataclass(frozen=True)
class Partition:
    """A part of an image, in bytes; `number` counts from 1; `table` is "mbr" or "gpt"."""

    number: int
    start: int
    size: int
    table: str

    @property
    def end(self) -> int:
        return self.start + self.size


def read(image: Path) -> tuple[Partition, ...]:
    """Every partition of `image`. Raises `InputError` when it is compressed, or has no table."""
    with image.open("rb") as file:
        head = file.read(_SECTOR)
        for magic, command in _PACKED.items():
            if head.startswith(magic):
                raise InputError(f"{image} is compressed", hint=f"unpack it first: {command} {image}")
        if len(head) < _SECTOR or head[510:] != b"\x55\xaa":
            raise InputError(f"{image} is no image of a card: it has no partition table")
        kinds = [head[_MBR_AT + i * _MBR_LINE + 4] for i in range(_MBR_LINES)]
        found = _gpt(file) if _PROTECTIVE in kinds else _mbr(head)
    size = image.stat().st_size
    if any(p.end > size for p in found):
        raise InputError(f"{image} is shorter than its partition table says", hint="was it downloaded whole?")
    return found


def _mbr(head: bytes) -> tuple[Partition, ...]:
    found = []
    for i in range(_MBR_LINES):
        start, sectors = struct.unpack_from("<II", head, _MBR_AT + i * _MBR_LINE + 8)
        if head[_MBR_AT + i * _MBR_LINE + 4] and sectors:
            found.append(Partition(i + 1, start * _SECTOR, sectors * _SECTOR, "mbr"))
    return tuple(found)


def _gpt(file: BinaryIO) -> tuple[Partition, ...]:
    file.seek(_SECTOR)
    head = file.read(_SECTOR)
    if not head.startswith(b"EFI PART"):
        return ()
    at, count, each = struct.unpack_from("<QII", head, 72)
    if at > _GPT_LAST or each > _GPT_LINE:
        return ()
    file.seek(at * _SECTOR)
    found = []
    for i in range(min(count, _GPT_MOST)):
        line = file.read(each)
        if len(line) < 48 or not any(line[:16]):
            continue
        first, last = struct.unpack_from("<QQ", line, 32)
        found.append(Partition(i + 1, first * _SECTOR, (last - first + 1) * _SECTOR, "gpt"))
    return tuple(found)


def grown(head: bytes, partition: Partition, size: int) -> bytes:
    """The image's first sector once `partition`, of an MBR, has `size` bytes."""
    at = _MBR_AT + (partition.number - 1) * _MBR_LINE + 12
    return head[:at] + struct.pack("<I", size // _SECTOR) + head[at + 4 :]
