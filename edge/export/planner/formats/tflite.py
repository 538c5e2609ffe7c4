"""TFLite: four bits in blocks of 32 or 64, eight with a scale for each row, or float32, by a rule for each matrix."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from edge.export import blocks, litert_experts
from edge.export.artifact import Artifact, Entry
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.formats import tflite
from edge.export.planner import damage
from edge.export.planner.formats.onnx import CARRIED
from edge.export.planner.front import Option, Part
from edge.export.planner.sensitivity import Sensitivity, nearest
from edge.export.planner.variety import Variety
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

_BITS = {"4/64": 4, "4/32": 4, "8": 8, "32": 32}
_NAMED = ("int8", "int4-mixed", "int4")
_TABLE = re.compile(r"(embed_tokens|lm_head)\.weight$")  # the embedding and the head, which are never left in float32
_ROUTER = re.compile(r"(mlp\.gate|block_sparse_moe\.gate|router\.layer)\.weight$")


def variety(
    full: Artifact,
    checkpoint: Checkpoint,
    sensitivity: Sensitivity,
    *,
    calibration: Calibration | None,
    progress: Progress,
) -> Variety:
    """Every matrix that ai-edge-quantizer has a rule for, in what LiteRT computes with activations of 8 bits."""
    left = CARRIED if calibration is not None else 1.0
    matrices = list(_matrices(full, checkpoint))
    tied = not any(name.endswith("lm_head.weight") for name, _, _, _ in matrices)
    progress.start("measuring what rounding costs in TFLite", len(matrices))
    graphs = sum(1 + len(sizes) for sizes in full.plan["prefills"].values())
    parts = []
    full_bytes = 0
    for name, sources, shape, stored in matrices:
        if not all(damage.known(checkpoint, sensitivity, s) for s in sources):
            continue
        types = [kind for kind in _BITS if shape[1] % _block(kind) == 0]
        if _TABLE.search(name):
            types.remove("32")
        costs = damage.of(checkpoint, sensitivity, sources, types, _rounded)
        n = shape[0] * shape[1]
        copies = max(1, round(stored / (4 * n)))
        options = tuple(
            Option(kind, copies * _bytes(shape, kind, graphs), costs[kind] * (left if "/" in kind else 1.0))
            for kind in types
        )
        parts.append(Part(name, copies * n, options, 0.0 if name.endswith("embed_tokens.weight") and not tied else 1.0))
        full_bytes += stored
        progress.advance(len(parts))
    rest = sum((full.folder / name).stat().st_size for name in full.files) - full_bytes
    named = {}
    for quantization in _NAMED:
        kinds = tflite.types_of(quantization, [part.name for part in parts])
        if all(any(o.type == kind for o in part.options) for part, kind in zip(parts, kinds, strict=True)):
            named[quantization] = kinds
    notes = ("LiteRT rounds activations by rows, the estimate takes blocks: expect more divergence",)
    return Variety(tuple(parts), named, _BITS, rest, notes)


def _matrices(full: Artifact, checkpoint: Checkpoint) -> list[tuple[str, tuple[str, ...], tuple[int, int], int]]:
    """Name in the file, source tensors, shape, and bytes in float32 of each matrix that has a rule."""
    found = []
    experts = {m.name: m for m in litert_experts.matrices(checkpoint)}
    for entry in full.ledger:
        for target in entry.target if _quantized(entry, experts) else ():
            if target in experts:
                matrix = experts[target]
                shape = matrix.read(checkpoint).shape
                found.append((target, matrix.keys, (shape[0], shape[1]), 4 * math.prod(shape)))
            elif target == entry.target[0]:
                shape = checkpoint.tensors[entry.source[0]].shape
                found.append((target, entry.source, (shape[0], shape[1]), entry.n_bytes))
    return found


def _quantized(entry: Entry, experts: object) -> bool:
    """Whether an entry holds matrices that are multiplied with, or looked up in."""
    first = entry.target[0] if entry.target else ""
    if not entry.source or _ROUTER.search(entry.source[0]):
        return False
    return first in experts or (first.endswith(".weight") and entry.n_elements > 0 and "norm" not in first)  # type: ignore[operator]


def _rounded(_: str, rows: np.ndarray, kind: str) -> np.ndarray:
    if kind == "32":
        return rows
    if kind == "8":
        return nearest(rows, 8, rows.shape[1])
    return blocks.quantize(rows, 4, _block(kind), "rtn", symmetric=True).dequantize(rows.shape[1])


def _block(kind: str) -> int:
    """Inputs that share a scale; 1 where a row does, or nothing is rounded."""
    return int(kind.partition("/")[2] or 1)


def _bytes(shape: tuple[int, int], kind: str, graphs: int) -> int:
    """Weights and their scales: 16 bits for a block; 32 for a row, with a zero point of 64, told anew in each graph."""
    n = shape[0] * shape[1]
    if "/" in kind:
        return n // 2 + 2 * (n // _block(kind))
    return 4 * n if kind == "32" else n + 12 * shape[0] * graphs
