"""Read a safetensors header from an untrusted file.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError

_HEADER_LIMIT_BYTES = 100_000_000
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class SafetensorsTensor:
    """`begin` and `end` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    tensors: Mapping[str, SafetensorsTensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> SafetensorsHeader:
    """The tensor table, checked: sizes match shapes, no gaps, no overlap, nothing past the end.

    Raises `InputError` naming the first thing that cannot be true.
    """
    path = Path(path)

    def fail(why: str) -> InputError:
        return InputError(f"{path} is not a sound safetensors file: {why}", hint="it may be cut short; get it again")

    size = path.stat().st_size
    with path.open("rb") as file:
        n = int.from_bytes(file.read(8), "little")
        if size < 8 or n > min(_HEADER_LIMIT_BYTES, size - 8):
            raise fail(f"its header of {n} bytes does not fit")
        raw = file.read(n)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise fail("its header has a key twice")
        return found

    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as err:
        raise fail(f"its header is not JSON ({err})") from err
    if not isinstance(data, dict):
        raise fail("its header is not an object")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise fail("its metadata is not an object")
    tensors: dict[str, SafetensorsTensor] = {}
    start = 8 + n
    for name, row in data.items():
        try:
            dtype, shape, (begin, end) = row["dtype"], row["shape"], row["data_offsets"]
            good = (
                dtype in DTYPE_BYTES
                and all(type(v) is int and v >= 0 for v in (*shape, begin, end))
                and len(shape) <= 16
            )
        except (KeyError, TypeError, ValueError) as err:
            raise fail(f"its entry for {name!r} is not complete") from err
        if not good:
            raise fail(f"its entry for {name!r} has an unknown type, shape or offset")
        n_bytes = DTYPE_BYTES[dtype]
        for d in shape:
            n_bytes *= d
        if end - begin != n_bytes:
            raise fail(f"{name!r} has {end - begin} bytes, its shape needs {n_bytes}")
        tensors[name] = SafetensorsTensor(dtype, tuple(shape), start + begin, start + end)
    at = start
    for name, t in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if t.begin != at:
            raise fail(f"{name!r} overlaps another tensor or leaves a gap")
        at = t.end
    if at != size:
        raise fail(f"it has {size} bytes, its tensors end at {at}")
    return SafetensorsHeader(tensors, metadata)
