"""The account of a TFLite conversion: every source tensor exactly once, every value found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import EdgeError
from edge.export import litert_experts
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.litert_factors import factor, is_multiple
from edge.readers.tflite import TfliteHeader, TfliteTensor, read

if TYPE_CHECKING:
    import numpy as np


def ledger(checkpoint: Checkpoint, path: Path, embedder: Path | None = None) -> tuple[Entry, ...]:
    """Where every source tensor went in the float32 file, each value compared.

    Weights carry their source's name; what litert-torch turned or packed is found by its values.
    A token embedding in a file of its own may be there once more, as the head of the model.
    Raises `EdgeError` naming the tensors when one is lost, used twice or changed.
    """
    import numpy as np

    out: list[Entry] = []
    of_experts = {m.name: m for m in litert_experts.matrices(checkpoint)}
    stored: dict[str, TfliteTensor] = {}
    for label, file, header, tensor in _constants(path, embedder):
        if tensor.name in of_experts:
            if not np.array_equal(values(file, header, tensor), of_experts[tensor.name].read(checkpoint)):
                raise EdgeError(
                    f"{of_experts[tensor.name].keys[0]} changed on the way to TFLite: {tensor.name} holds other values",
                    hint="this architecture is not converted faithfully; nothing was written",
                )
            stored[tensor.name] = tensor
            continue
        if tensor.name not in checkpoint.tensors:
            note = "made by the exporter"
            out.append(Entry((), (label,), tensor.type, _count(tensor), tensor.n_bytes, "fold", note))
            continue
        array, wanted = values(file, header, tensor), checkpoint.read(tensor.name)
        if tensor.name.endswith("norm.weight") and np.array_equal(array, wanted + 1):
            note = "with the 1 that the source adds to it"
            out.append(Entry((tensor.name,), (label,), tensor.type, _count(tensor), tensor.n_bytes, "fold", note))
            continue
        by = factor(array, wanted, tensor.name, checkpoint.config)
        if by != 1 and is_multiple(array, wanted, by):
            note = f"multiplied by {by:g}, as what follows it would be"
            out.append(Entry((tensor.name,), (label,), tensor.type, _count(tensor), tensor.n_bytes, "fold", note))
            continue
        if not np.array_equal(array, wanted):
            raise EdgeError(
                f"{tensor.name} changed on the way to TFLite: it holds other values",
                hint="this architecture is not converted faithfully; nothing was written",
            )
        entry = Entry((tensor.name,), (label,), tensor.type, _count(tensor), tensor.n_bytes)
        head = next((i for i, e in enumerate(out) if file == embedder and e.source == entry.source), None)
        if head is None:
            out.append(entry)
        else:
            note = "the head of the model, and once more in the token embedding's file"
            n, size = 2 * entry.n_elements, 2 * entry.n_bytes
            out[head] = replace(out[head], target=(*out[head].target, label), n_elements=n, n_bytes=size, note=note)
    for source, target in litert_experts.sources(checkpoint):
        found = [stored[name] for name in target if name in stored]
        if len(found) == len(target):
            n_elements, n_bytes = sum(map(_count, found)), sum(t.n_bytes for t in found)
            out.append(litert_experts.entry(source, target, found[0].type, n_elements, n_bytes))
    counts = Counter(name for entry in out for name in entry.source)
    lost = sorted(set(checkpoint.tensors) - set(counts))
    for name in list(lost):
        if name.endswith("lm_head.weight") and checkpoint.config.get("tie_word_embeddings"):
            out.append(Entry((name,), (), "", 0, 0, "tie", "the same matrix as the token embedding, stored once"))
            lost.remove(name)
    twice = sorted(n for n, k in counts.items() if k > 1)
    for kind, names in (("unaccounted for", lost), ("stored twice", twice)):
        if names:
            raise EdgeError(
                f"{len(names)} source tensors are {kind} after the conversion to TFLite: {', '.join(names[:3])}",
                hint="this architecture is not converted faithfully; nothing was written",
            )
    return tuple(out)


def _constants(path: Path, embedder: Path | None) -> Iterator[tuple[str, Path, TfliteHeader, TfliteTensor]]:
    """Every constant with a name that no other file's has, its file, and what that says."""
    for file in (path, embedder):
        if file is not None:
            header = read(file)
            for tensor in header.constants().values():
                yield f"{file.name}/{tensor.name}" if file == embedder else tensor.name, file, header, tensor


def with_types(entries: tuple[Entry, ...], path: Path, embedder: Path | None = None) -> tuple[Entry, ...]:
    """The same account for a file in which matrices were quantized."""
    found: dict[str, list[tuple[TfliteTensor, TfliteTensor | None]]] = {}
    for label, _, header, tensor in _constants(path, embedder):
        name = label.removesuffix(tensor.name) + base_name(tensor)
        found.setdefault(name, []).append((tensor, scales_of(header, tensor)))
    out = []
    for entry in entries:
        stored = [pair for target in entry.target for pair in found.get(target, ())]
        if entry.target and not stored:
            if entry.source:
                raise EdgeError(f"the quantized file lacks {entry.target[0]}, which came from {entry.source[0]}")
            continue
        if entry.source and len(stored) > len(entry.target):
            raise EdgeError(f"{entry.source[0]} is stored {len(stored)} times in the quantized file")
        size = sum(t.n_bytes + (s.n_bytes if s else 4 * t.n_scales) for t, s in stored)
        types = "+".join(dict.fromkeys(t.type for t, _ in stored))
        out.append(replace(entry, type=types, n_bytes=size))
    return tuple(out)


def base_name(tensor: TfliteTensor) -> str:
    """The name without the number that tells the same weight's places in several subgraphs apart."""
    name, _, number = tensor.name.partition("#")
    return name if number[:1].isdigit() and not number.endswith("_scales") else tensor.name


def scales_of(header: TfliteHeader, tensor: TfliteTensor) -> TfliteTensor | None:
    """The tensor that holds the scales of a blockwise quantized one."""
    if tensor.scales is None:
        return None
    graph = next(g for g in header.subgraphs if any(t is tensor for t in g))
    return graph[tensor.scales]


def values(path: Path, header: TfliteHeader, tensor: TfliteTensor) -> np.ndarray:
    """What the runtime computes with, float32; whole numbers as they are."""
    import numpy as np

    if tensor.type == "int4":
        packed = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        halves = np.stack([packed & 15, packed >> 4], -1).reshape(-1).astype(np.int8)
        q = np.where(halves > 7, halves - 16, halves)[: _count(tensor)].reshape(tensor.shape)
    else:
        kind = {"bfloat16": "uint16"}.get(tensor.type, tensor.type)
        q = np.memmap(path, kind, "r", tensor.offset, tensor.shape or (1,)).reshape(tensor.shape)
    block = scales_of(header, tensor)
    if block is not None:
        scales = np.memmap(path, block.type, "r", block.offset, block.shape).astype(np.float32)
        blocks = q.reshape(*q.shape[:-1], -1, tensor.block_size).astype(np.float32)
        out: np.ndarray = (blocks * scales.reshape(*blocks.shape[:-1], 1)).reshape(tensor.shape)
        return out
    if tensor.n_scales:
        scales = np.memmap(path, np.float32, "r", tensor.scales_at, (tensor.n_scales,))
        along = [1] * q.ndim
        along[tensor.quantized_dimension] = tensor.n_scales
        return q.astype(np.float32) * scales.reshape(along)
    return q


def _count(tensor: TfliteTensor) -> int:
    n = 1
    for size in tensor.shape:
        n *= size
    return n
