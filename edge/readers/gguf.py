"""Read a GGUF header from an untrusted file: every count and length is checked before use.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError

_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_DIMENSIONS = 4
_MAX_NAME_BYTES = 1 << 16
_MAX_ALIGNMENT = 1 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# ggml type id -> (name, elements in a block, bytes of a block), from ggml-common.h.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """`shape` is the file's own order, fastest first; `offset` counts from the start of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n


@dataclass(frozen=True)
class GgufHeader:
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    size_bytes: int


class _Cursor:
    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self.data, self.path, self.size, self.at = data, path, len(data), 0

    def fail(self, why: str) -> InputError:
        return InputError(
            f"{self.path} is not a sound GGUF file: {why}",
            hint="it may be cut short; get it again and compare its sha256",
        )

    def take(self, n: int) -> bytes:
        if n > self.size - self.at:
            raise self.fail(f"it ends before {n} bytes that its header promises")
        self.at += n
        return self.data[self.at - n : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, what: str, limit: int) -> int:
        n: int = self.scalar("Q")
        if n > limit:
            raise self.fail(f"{n} {what}, at most {limit} are believable")
        return n

    def text(self, limit: int | None = None) -> str:
        n = self.count("bytes of text", min(limit or self.size, self.size))
        return self._decoded(self.take(n))

    def texts(self, n: int) -> list[str]:
        """Written out, because vocabularies have a hundred thousand of them and every load reads them."""
        unpack, data, size, at = struct.Struct("<Q").unpack_from, self.data, self.size, self.at
        found = []
        for _ in range(n):
            if size - at < 8 or (length := unpack(data, at)[0]) > size - at - 8:
                raise self.fail("it ends inside a list of texts")
            at += 8 + length
            found.append(data[at - length : at])
        self.at = at
        return [self._decoded(raw) for raw in found]

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as err:
            raise self.fail("a text in its header is not UTF-8") from err

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            item: int = self.scalar("I")
            n = self.count("array items", self.size)
            if item in _SCALARS:
                code = _SCALARS[item]
                return list(struct.unpack(f"<{n}{code}", self.take(n * struct.calcsize("<" + code))))
            # A text takes 8 bytes at the least, so this bounds the loop.
            if n * 8 > self.size - self.at:
                raise self.fail(f"an array of {n} items does not fit into the file")
            if item == _STRING:
                return self.texts(n)
            kind = item
        raise self.fail(f"unknown metadata type {kind}")


def read_header(path: Path) -> GgufHeader:
    """Metadata and tensor table of a GGUF file (version 2 or 3), in memory bounded by the file.

    Raises `InputError` naming the first thing that cannot be true: a length past the end, a
    duplicate name, an unknown type, tensors that overlap or lie outside the file.
    """
    path = Path(path)
    if path.stat().st_size < 4:  # an empty file cannot be mapped
        raise _Cursor(b"", path).fail("it ends before its first 4 bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _Cursor(data, path)
        if at.take(4) != b"GGUF":
            raise at.fail("it does not start with the letters GGUF")
        version: int = at.scalar("I")
        if version not in (2, 3):
            raise at.fail(f"format version {version}, this edge reads 2 and 3")
        n_tensors, n_keys = at.count("tensors", _MAX_TENSORS), at.count("metadata keys", _MAX_KEYS)
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = at.text(_MAX_NAME_BYTES)
            if key in metadata:
                raise at.fail(f"the metadata key {key!r} is there twice")
            metadata[key] = at.value(at.scalar("I"))
        rows = [_tensor_row(at) for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise at.fail(f"alignment {alignment!r} is not a power of two up to {_MAX_ALIGNMENT}")
        start = -(-at.at // alignment) * alignment
        return GgufHeader(metadata, _table(at, rows, start, alignment), at.size)


def _tensor_row(at: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = at.text(_MAX_NAME_BYTES)
    n_dims: int = at.scalar("I")
    if not 0 < n_dims <= _MAX_DIMENSIONS:
        raise at.fail(f"tensor {name!r} has {n_dims} dimensions")
    shape = tuple(at.scalar("Q") for _ in range(n_dims))
    return name, shape, at.scalar("I"), at.scalar("Q")


def _table(
    at: _Cursor, rows: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
) -> dict[str, GgufTensor]:
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in rows:
        if name in tensors:
            raise at.fail(f"the tensor {name!r} is there twice")
        if kind not in TYPES:
            raise at.fail(f"tensor {name!r} has the unknown type {kind}")
        type_name, block, block_bytes = TYPES[kind]
        n = 1
        for d in shape:
            n *= d
        if not 0 < n <= at.size * 8 or shape[0] % block:
            raise at.fail(f"tensor {name!r} of type {type_name} cannot have the shape {list(shape)}")
        n_bytes = n // block * block_bytes
        if offset % alignment or start + offset + n_bytes > at.size:
            raise at.fail(f"tensor {name!r} lies outside the file or is not aligned")
        tensors[name] = GgufTensor(name, type_name, shape, start + offset, n_bytes)
    end = 0
    for t in sorted(tensors.values(), key=lambda t: t.offset):
        if t.offset < end:
            raise at.fail(f"tensor {t.name!r} overlaps the one before it")
        end = t.offset + t.n_bytes
    return tensors
