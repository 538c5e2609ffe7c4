"""GGUF: llama.cpp gives every tensor a type of its own when it is told to (`tt_overrides`).

What a type does to a matrix is asked of ggml itself, with the importance that quantizing will use.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from edge.errors import require
from edge.export import experts
from edge.export.artifact import Artifact
from edge.export.calibrate import Calibration, activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.formats import gguf
from edge.export.planner import aligned, damage
from edge.export.planner.front import Option, Part
from edge.export.planner.sensitivity import Sensitivity
from edge.export.planner.variety import Variety
from edge.progress import Progress
from edge.runtimes.traffic import chosen_share

if TYPE_CHECKING:
    import numpy as np

# What a type counts as for the gate; those that need no importance to be sound.
_BITS = {
    "F16": 16, "Q8_0": 8, "Q6_K": 6, "Q5_K": 5, "Q5_1": 5, "Q5_0": 5, "Q4_K": 4, "Q4_1": 4, "Q4_0": 4, "IQ4_NL": 4,
    "IQ4_XS": 4, "Q3_K": 3, "IQ3_S": 3, "Q2_K": 2,
}  # fmt: skip
_NAMED = ("q8_0", "q6_k", "q5_k_m", "q5_0", "q4_k_m", "q4_k_s", "q4_0", "iq4_nl", "iq4_xs", "q3_k_m", "q2_k")


def variety(
    full: Artifact,
    checkpoint: Checkpoint,
    sensitivity: Sensitivity,
    *,
    calibration: Calibration | None,
    progress: Progress,
) -> Variety:
    """Every tensor that llama.cpp would quantize, with every type that fits its rows."""
    require("gguf", extra=gguf.EXTRA, purpose="planning a GGUF file")
    require("llama_cpp", extra=gguf.EXTRA, purpose="planning a GGUF file")
    from edge.readers.gguf import read_header

    stored = read_header(full.path).tensors
    statistics = activation_statistics(checkpoint, calibration, progress) if calibration else {}
    can = gguf.types_of(full, "q8_0")
    matrices = {
        name: keys
        for name, keys in _matrices(full, checkpoint).items()
        if name in can and all(damage.known(checkpoint, sensitivity, key) for key in keys)
    }
    share = chosen_share(checkpoint.config)
    tied = "output.weight" not in stored
    progress.start("measuring what rounding costs in GGUF", len(matrices))

    def rounded(name: str, rows: np.ndarray, kind: str) -> np.ndarray:
        return _rounded(rows, kind, statistics.get(name)) if rows.shape[1] % _layout(kind)[0] == 0 else rows

    measured = []
    for done, (name, keys) in enumerate(matrices.items()):
        width, n = stored[name].shape[0], stored[name].n_elements
        types = [kind for kind in _BITS if width % _layout(kind)[0] == 0]
        costs = damage.of(checkpoint, sensitivity, keys, types, rounded)
        sizes = {kind: n // _layout(kind)[0] * _layout(kind)[1] for kind in types}
        read = share if "_exps." in name else 0.0 if name == "token_embd.weight" and not tied else 1.0
        options = tuple(Option(kind, sizes[kind], costs[kind]) for kind in types)
        measured.append(Part(name, n, options, read))
        progress.advance(done + 1)
    parts, notes = tuple(measured), tuple[str, ...]()
    if calibration is not None:
        parts, notes = aligned.corrected(parts, checkpoint, calibration, sensitivity, rounded, progress)
    # Of a matrix about which nothing is known, eight bits are kept.
    unknown = sum(gguf.OTHERS_BYTES * stored[name].n_elements for name in set(can) - set(matrices))
    rest = full.path.stat().st_size - sum(stored[name].n_bytes for name in can) + round(unknown)
    named = {}
    for quantization in _NAMED:
        found = gguf.types_of(full, quantization)
        kinds = tuple(found.get(part.name, "").upper() for part in parts)
        if all(any(o.type == kind for o in part.options) for part, kind in zip(parts, kinds, strict=True)):
            named[quantization] = kinds
    return Variety(parts, named, _BITS, rest, notes)


def _matrices(full: Artifact, checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """What each tensor of the file was made from: source tensors, or experts as `Layer.keys` calls them."""
    found = {e.target[0]: e.source for e in full.ledger if len(e.target) == 1 and e.source}
    for layer in experts.layers(checkpoint):
        for part, kind in enumerate(("gate", "up", "down")):
            keys = tuple(layer.keys(e)[part] for e in range(experts.count(checkpoint.config)))
            found[f"blk.{layer.index}.ffn_{kind}_exps.weight"] = keys
    return found


class _Traits(ctypes.Structure):
    """`ggml_type_traits`, as ggml.h of the pinned llama.cpp has it."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


def _number(kind: str) -> int:
    from gguf import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])


def _layout(kind: str) -> tuple[int, int]:
    """Elements and bytes of a block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(block), int(size)


def _ggml() -> Any:
    """The library that llama.cpp itself quantizes with; its functions are found through what links to it."""
    from llama_cpp import llama_cpp

    library = llama_cpp._lib
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def _rounded(rows: np.ndarray, kind: str, importance: np.ndarray | None) -> np.ndarray:
    """`rows` float32 `(n, columns)` as ggml stores them, with the importance of each column or without."""
    import numpy as np

    if kind == "F16":
        return rows.astype(np.float16).astype(np.float32)
    library, number = _ggml(), _number(kind)
    block, size = _layout(kind)
    source = np.ascontiguousarray(rows, np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    stored = np.empty(source.size // block * size, np.uint8)
    library.ggml_quantize_chunk(
        number, source.ctypes.data, stored.ctypes.data, 0, len(source), source.shape[1],
        None if weights is None else weights.ctypes.data,
    )  # fmt: skip
    out = np.empty_like(source)
    library.ggml_get_type_traits(number).contents.to_float(stored.ctypes.data, out.ctypes.data, source.size)
    return out
