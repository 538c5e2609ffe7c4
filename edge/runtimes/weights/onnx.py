"""ONNX: a matrix of few bits is three tensors (blocks, scales, zero points), experts are those of `QMoE`."""

from __future__ import annotations

from pathlib import Path

from edge.readers import onnx as reader
from edge.runtimes.weights import Weight


def read(path: Path) -> tuple[Weight, ...]:
    """Every initializer of the decoder's graph."""
    header = reader.read(path)
    # A graph without the sparse operator computes every expert, and multiplies most results by zero.
    sparse = any(name in header.operators for name in ("QMoE", "MoE", "If"))
    return tuple(Weight(t.name, t.type, t.n_bytes, chosen_only=sparse and ".experts" in t.name) for t in header.tensors)
