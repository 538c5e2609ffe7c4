"""What a TFLite file says about itself, read with limits on every length, without a runtime.

A FlatBuffer is offsets all the way down, and none of them can be trusted: each is checked against
the file before it is followed. The tables and their slots are those of TFLite's `schema.fbs`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edge.errors import InputError

_IDENTIFIER = b"TFL3"
_LIMIT_BYTES = 64 << 30
_MAX_TENSORS = 1_000_000  # over all subgraphs
_MAX_NODES = 1_000_000
_MAX_DIMS = 16
# TensorType: its name, and the bits of one element; the types below 8 bits are packed along the last dimension.
_TYPES = {
    0: ("float32", 32), 1: ("float16", 16), 2: ("int32", 32), 3: ("uint8", 8), 4: ("int64", 64), 6: ("bool", 8),
    7: ("int16", 16), 9: ("int8", 8), 10: ("float64", 64), 12: ("uint64", 64), 15: ("uint32", 32),
    16: ("uint16", 16), 17: ("int4", 4), 18: ("bfloat16", 16), 19: ("int2", 2), 20: ("uint4", 4),
}  # fmt: skip
_BLOCKWISE = 2  # QuantizationDetails
_CUSTOM_OPERATOR = 32


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of a subgraph.

    A constant has `n_bytes` of data at `offset` of the file; others have neither (0). Of a
    quantized one, `scales_at` and `n_scales` say where its float32 scales lie, one for each index
    of `quantized_dimension`, or, with blocks, `scales` is the index of the float16 tensor that
    holds one for every `block_size` inputs.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    buffer: int
    offset: int = 0
    n_bytes: int = 0
    scales_at: int = 0
    n_scales: int = 0
    quantized_dimension: int = 0
    scales: int | None = None
    block_size: int = 0


@dataclass(frozen=True)
class Signature:
    """An entry point: the names of its inputs and outputs, each with its tensor."""

    subgraph: int
    inputs: Mapping[str, TfliteTensor]
    outputs: Mapping[str, TfliteTensor]


@dataclass(frozen=True)
class TfliteHeader:
    """Subgraphs with their tensors, how often each operator occurs, and the signatures."""

    version: int
    subgraphs: tuple[tuple[TfliteTensor, ...], ...]
    operators: Mapping[str, int]
    signatures: Mapping[str, Signature]
    size_bytes: int

    def constants(self) -> dict[int, TfliteTensor]:
        """One tensor for every buffer with data, by the buffer's number: subgraphs share them."""
        return {t.buffer: t for graph in reversed(self.subgraphs) for t in reversed(graph) if t.n_bytes}

    def facts(self) -> dict[str, Any]:
        """For `edge inspect`."""
        by_type: dict[str, dict[str, int]] = {}
        for tensor in self.constants().values():
            row = by_type.setdefault(tensor.type, {"tensors": 0, "bytes": 0})
            row["tensors"] += 1
            row["bytes"] += tensor.n_bytes
        return {
            "format": "tflite",
            "schema": self.version,
            "size_bytes": self.size_bytes,
            "tensors": sum(row["tensors"] for row in by_type.values()),
            "types": dict(sorted(by_type.items())),
            "operators": dict(sorted(self.operators.items())),
            "signatures": {
                name: {"inputs": len(s.inputs), "outputs": len(s.outputs)} for name, s in self.signatures.items()
            },
        }


def read(path: Path) -> TfliteHeader:
    """Walk the file; `InputError` for offsets and lengths that leave it, and for data that is not there."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no model file at {path}", hint="export it again")
    size = path.stat().st_size
    if not 16 <= size <= _LIMIT_BYTES:
        raise InputError(f"{path} cannot be a TFLite model: it has {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(data, path).model()


class _Table:
    """A FlatBuffer table at `at`: slots by number, absent ones as their default."""

    def __init__(self, reader: _Reader, at: int) -> None:
        self._reader, self._at = reader, at
        self._vtable = at - reader.number("<i", at)
        self._slots = reader.number("<H", self._vtable)

    def position(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._slots:
            return None
        offset = self._reader.number("<H", self._vtable + entry)
        return self._at + offset if offset else None

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        at = self.position(slot)
        return default if at is None else self._reader.number(kind, at)

    def table(self, slot: int) -> _Table | None:
        at = self.position(slot)
        return None if at is None else _Table(self._reader, self._reader.follow(at))

    def vector(self, slot: int, item_bytes: int) -> tuple[int, int]:
        """Where the items start and how many there are; (0, 0) when there is no vector."""
        at = self.position(slot)
        return (0, 0) if at is None else self._reader.vector(self._reader.follow(at), item_bytes)

    def tables(self, slot: int) -> Iterator[_Table]:
        start, n = self.vector(slot, 4)
        for i in range(n):
            yield _Table(self._reader, self._reader.follow(start + 4 * i))

    def text(self, slot: int) -> str:
        start, n = self.vector(slot, 1)
        return self._reader.data[start : start + n].decode("utf-8", "replace")


class _Reader:
    def __init__(self, data: Any, path: Path) -> None:
        self.data, self.size, self._path = data, len(data), path

    def fail(self, words: str) -> NoReturn:
        raise InputError(f"{self._path} is damaged: {words}", hint="export it again") from None

    def number(self, kind: str, at: int) -> int:
        if not 0 <= at <= self.size - struct.calcsize(kind):
            self.fail(f"an offset leads to byte {at} of {self.size}")
        value: int = struct.unpack_from(kind, self.data, at)[0]
        return value

    def follow(self, at: int) -> int:
        return at + self.number("<I", at)

    def vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        n = self.number("<I", at)
        if at + 4 + n * item_bytes > self.size:
            self.fail(f"a list of {n:,} items goes past its end")
        return at + 4, n

    def model(self) -> TfliteHeader:
        if self.data[4:8] != _IDENTIFIER:
            raise InputError(f"{self._path} is no TFLite model: it does not say {_IDENTIFIER.decode()}")
        root = _Table(self, self.follow(0))
        buffers = [self._buffer(b) for b in self._few(root.tables(4), _MAX_TENSORS, "buffers")]
        codes = [self._operator(t) for t in self._few(root.tables(1), 10_000, "kinds of operators")]
        operators: dict[str, int] = {}
        subgraphs = []
        n_tensors = n_nodes = 0
        for graph in self._few(root.tables(2), 100_000, "subgraphs"):
            tensors = tuple(self._tensor(t, buffers) for t in self._few(graph.tables(0), _MAX_TENSORS, "tensors"))
            n_tensors += len(tensors)
            for node in self._few(graph.tables(3), _MAX_NODES, "operators"):
                n_nodes += 1
                index = node.number(0, "<I")
                if index >= len(codes):
                    self.fail(f"an operator is of kind {index} of {len(codes)}")
                operators[codes[index]] = operators.get(codes[index], 0) + 1
            if n_tensors > _MAX_TENSORS or n_nodes > _MAX_NODES:
                self.fail(f"it has more than {_MAX_TENSORS:,} tensors or {_MAX_NODES:,} operators")
            if any(t.scales is not None and not 0 <= t.scales < len(tensors) for t in tensors):
                self.fail("a tensor's scales are in a tensor that does not exist")
            subgraphs.append(tensors)
        if not subgraphs:
            self.fail("it has no graph")
        signatures: dict[str, Signature] = {}
        for table in self._few(root.tables(7), 1000, "signatures"):
            name = table.text(2)
            if name in signatures:
                self.fail(f"two signatures are called {name:.60}")
            signatures[name] = self._signature(table, subgraphs)
        return TfliteHeader(root.number(0, "<I"), tuple(subgraphs), operators, signatures, self.size)

    def _few(self, items: Iterator[_Table], limit: int, what: str) -> Iterator[_Table]:
        for i, item in enumerate(items):
            if i >= limit:
                self.fail(f"it has more than {limit:,} {what}")
            yield item

    def _buffer(self, table: _Table) -> tuple[int, int]:
        start, n = table.vector(0, 1)
        if not n and (far := table.number(2, "<Q")) > 1:  # data behind the FlatBuffer, for files of 2 GB and more
            start, n = table.number(1, "<Q"), far
            if start + n > self.size:
                self.fail(f"{n:,} bytes of weights at {start:,} go past its end")
        return start, n

    def _operator(self, table: _Table) -> str:
        code = max(table.number(0, "<b"), table.number(3, "<i"))
        return table.text(1) if code == _CUSTOM_OPERATOR else str(code)

    def _tensor(self, table: _Table, buffers: list[tuple[int, int]]) -> TfliteTensor:
        at, n_dims = table.vector(0, 4)
        name, kind = table.text(3), table.number(1, "<b")
        if n_dims > _MAX_DIMS:
            self.fail(f"tensor {name:.60} has {n_dims:,} dimensions")
        shape = tuple(self.number("<i", at + 4 * i) for i in range(n_dims))
        buffer = table.number(2, "<I")
        if buffer >= len(buffers):
            self.fail(f"tensor {name:.60} has buffer {buffer} of {len(buffers)}")
        offset, n_bytes = buffers[buffer]
        type_name, bits = _TYPES.get(kind, (f"type {kind}", 0))
        if n_bytes and bits:
            wanted = _packed_bytes(shape, bits)
            if wanted != n_bytes:
                self.fail(f"tensor {name:.60} of shape {shape} has {n_bytes:,} bytes, not {wanted:,}")
        more = self._quantization(table.table(4))
        return TfliteTensor(name, type_name, shape, buffer, offset if n_bytes else 0, n_bytes, **more)

    def _quantization(self, table: _Table | None) -> dict[str, Any]:
        if table is None:
            return {}
        at, n = table.vector(2, 4)
        found: dict[str, Any] = {"scales_at": at, "n_scales": n, "quantized_dimension": table.number(6, "<i")}
        details = table.table(5) if table.number(4, "<B") == _BLOCKWISE else None
        if details is not None:
            found |= {"scales": details.number(0, "<i"), "block_size": details.number(2, "<i")}
            if found["block_size"] < 1:
                self.fail(f"blocks of {found['block_size']} weights")
        return found

    def _signature(self, table: _Table, subgraphs: list[tuple[TfliteTensor, ...]]) -> Signature:
        subgraph = table.number(4, "<I")
        if subgraph >= len(subgraphs):
            self.fail(f"a signature is of subgraph {subgraph} of {len(subgraphs)}")
        tensors = subgraphs[subgraph]

        def ends(slot: int) -> dict[str, TfliteTensor]:
            out: dict[str, TfliteTensor] = {}
            for end in self._few(table.tables(slot), _MAX_TENSORS, "inputs"):
                index = end.number(1, "<I")
                if index >= len(tensors):
                    self.fail(f"a signature names tensor {index} of {len(tensors)}")
                out[end.text(0)] = tensors[index]
            return out

        return Signature(subgraph, ends(0), ends(1))


def _packed_bytes(shape: tuple[int, ...], bits: int) -> int:
    n = 1
    for size in shape:
        n *= max(size, 0)
    return (n * bits + 7) // 8


def rewrite(path: Path, change: Callable[[TfliteHeader, mmap.mmap], None]) -> None:
    """Let `change` write into the file's bytes where the header says they are."""
    header = read(path)
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        change(header, data)
        data.flush()
