"""What an ONNX file says about itself, read with limits on every length, without the onnx library.

Only the parts of the protobuf that name, type and place weights are walked (onnx.proto,
`ModelProto`); a runtime is shown the file only after this went well.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import safe_path
from edge.errors import InputError

_LIMIT_BYTES = 2 << 30  # protobuf's own; larger weights are external
_MAX_TENSORS = 1_000_000
_MAX_DIMS = 16
# Bytes of an element by TensorProto.DataType; the types of 4 bits are stored two to a byte.
_ITEM_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4}  # noqa: E501  # fmt: skip
_NAMES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16", 21: "uint4", 22: "int4"}  # noqa: E501  # fmt: skip


@dataclass(frozen=True)
class OnnxTensor:
    """A weight: `file` is the external data file it lies in, or `None` for the model itself."""

    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int
    file: str | None


@dataclass(frozen=True)
class OnnxHeader:
    """The graph's surface: operators with their counts, weights, inputs and outputs."""

    opset: dict[str, int]
    operators: dict[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[OnnxTensor, ...]
    size_bytes: int

    def facts(self) -> dict[str, Any]:
        """For `edge inspect`."""
        by_type: dict[str, dict[str, int]] = {}
        for tensor in self.tensors:
            row = by_type.setdefault(tensor.type, {"tensors": 0, "bytes": 0})
            row["tensors"] += 1
            row["bytes"] += tensor.n_bytes
        return {
            "format": "onnx",
            "opset": self.opset,
            "size_bytes": self.size_bytes + sum(t.n_bytes for t in self.tensors if t.file),
            "tensors": len(self.tensors),
            "types": dict(sorted(by_type.items())),
            "operators": dict(sorted(self.operators.items())),
            "inputs": ", ".join(self.inputs[:4]) + (", ..." if len(self.inputs) > 4 else ""),
            "outputs": ", ".join(self.outputs[:4]) + (", ..." if len(self.outputs) > 4 else ""),
            "external_files": sorted({t.file for t in self.tensors if t.file}),
        }


def read(path: Path) -> OnnxHeader:
    """Walk the file; `InputError` for lengths past the end, hostile paths and data that is not there."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no model file at {path}", hint="export it again")
    size = path.stat().st_size
    if not 0 < size <= _LIMIT_BYTES:
        raise InputError(f"{path} cannot be an ONNX model: it has {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        view = memoryview(data)
        try:
            return _model(view, path, size)
        except (IndexError, UnicodeDecodeError) as err:
            raise InputError(f"{path} is damaged: {err}", hint="export it again") from None
        finally:
            view.release()


def _model(data: memoryview, path: Path, size: int) -> OnnxHeader:
    opset: dict[str, int] = {}
    graph: tuple[int, int] | None = None
    for field, _, span in _fields(data, 0, len(data), path):
        if field == 7 and span:
            graph = span
        elif field == 8 and span:
            domain, version = "", 0
            for inner, number, text in _fields(data, *span, path):
                if inner == 1 and text:
                    domain = _text(data, text)
                elif inner == 2:
                    version = number
            opset[domain or "ai.onnx"] = version
    if graph is None:
        raise InputError(f"{path} holds no graph, so it is no ONNX model", hint="export it again")
    operators: dict[str, int] = {}
    tensors: list[OnnxTensor] = []
    ends: dict[int, list[str]] = {11: [], 12: []}
    for field, _, span in _fields(data, *graph, path):
        if span is None:
            continue
        if field == 1:
            kind = next((_text(data, s) for f, _, s in _fields(data, *span, path) if f == 4 and s), "")
            operators[kind] = operators.get(kind, 0) + 1
        elif field == 5:
            tensors.append(_tensor(data, span, path))
            if len(tensors) > _MAX_TENSORS:
                raise InputError(f"{path} has more than {_MAX_TENSORS:,} tensors")
        elif field in ends:
            ends[field] += [_text(data, s) for f, _, s in _fields(data, *span, path) if f == 1 and s]
    names = [t.name for t in tensors]
    if len(set(names)) != len(names):
        raise InputError(f"{path} has two tensors of one name", hint="export it again")
    return OnnxHeader(opset, operators, tuple(ends[11]), tuple(ends[12]), tuple(tensors), size)


def _tensor(data: memoryview, span: tuple[int, int], path: Path) -> OnnxTensor:
    dims: list[int] = []
    kind, name, raw, external = 0, "", 0, {}
    for field, value, inner in _fields(data, *span, path):
        if field == 1 and inner:
            at = inner[0]
            while at < inner[1]:
                number, at = _varint(data, at, inner[1], path)
                dims.append(number)
        elif field == 1:
            dims.append(value)
        elif field == 2:
            kind = value
        elif field == 8 and inner:
            name = _text(data, inner)
        elif field == 9 and inner:
            raw = inner[1] - inner[0]
        elif field == 13 and inner:
            pair = {f: _text(data, s) for f, _, s in _fields(data, *inner, path) if s}
            external[pair.get(1, "")] = pair.get(2, "")
        if len(dims) > _MAX_DIMS:
            raise InputError(f"{path}: tensor {name!r} has more than {_MAX_DIMS} dimensions")
    n_elements = 1
    for dim in dims:
        n_elements *= dim
        if dim >= 1 << 63 or n_elements > 1 << 48:
            raise InputError(f"{path}: tensor {name!r} claims {dims} elements, more than any file holds")
    if not external:
        return OnnxTensor(name, _NAMES.get(kind, f"type {kind}"), tuple(dims), raw, None)
    location = external.get("location", "")
    place = path.parent / safe_path(location)
    offset, length = _number(external.get("offset", "0"), path), _number(external.get("length", "-1"), path)
    if place.is_symlink() or not place.is_file():
        raise InputError(f"{path} keeps weights in {location!r}, which is not there", hint="export it again")
    wanted = (n_elements * _ITEM_BITS.get(kind, 8) + 7) // 8
    if kind not in _ITEM_BITS or (length != wanted and length >= 0):
        raise InputError(f"{path}: tensor {name!r} needs {wanted} bytes, its entry says {length}")
    if offset < 0 or offset + wanted > place.stat().st_size:
        raise InputError(f"{path}: tensor {name!r} reaches past the end of {location}", hint="export it again")
    return OnnxTensor(name, _NAMES.get(kind, f"type {kind}"), tuple(dims), wanted, location)


def _fields(data: memoryview, start: int, end: int, path: Path) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    """The fields of a message: number, value of a plain one, span of one with a length."""
    at = start
    while at < end:
        key, at = _varint(data, at, end, path)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at, end, path)
            yield field, value, None
        elif wire == 2:
            length, at = _varint(data, at, end, path)
            if length > end - at:
                raise InputError(f"{path} is damaged: a length reaches past the end", hint="export it again")
            yield field, 0, (at, at + length)
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            if at > end:
                raise InputError(f"{path} is damaged: a number reaches past the end", hint="export it again")
        else:
            raise InputError(f"{path} is no ONNX model, or is damaged", hint="export it again")


def _varint(data: memoryview, at: int, end: int, path: Path) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InputError(f"{path} is no ONNX model, or is cut short", hint="export it again")


def _text(data: memoryview, span: tuple[int, int]) -> str:
    return bytes(data[span[0] : min(span[1], span[0] + 4096)]).decode("utf-8")


def _number(text: str, path: Path) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{path}: {text!r} is no offset into a data file") from None
