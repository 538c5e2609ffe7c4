"""TFLite: what the decode graph that sees everything refers to; buffers that several tensors share count once."""

from __future__ import annotations

from pathlib import Path

from edge.readers import tflite as reader
from edge.runtimes.weights import Weight


def read(path: Path) -> tuple[Weight, ...]:
    """Every constant of the `decode` signature. All experts are computed: its graphs have no way to skip some."""
    header = reader.read(path)
    if "decode" not in header.signatures:
        return ()
    found = {t.offset: t for t in header.subgraphs[header.signatures["decode"].subgraph] if t.n_bytes}
    return tuple(Weight(t.name, t.type, t.n_bytes) for t in found.values())
