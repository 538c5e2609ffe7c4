"""GGUF: experts of a layer are one tensor of three dimensions, of which llama.cpp reads the chosen ones."""

from __future__ import annotations

from pathlib import Path

from edge.readers import gguf as reader
from edge.runtimes.weights import Weight


def read(path: Path) -> tuple[Weight, ...]:
    """Every tensor of the file."""
    return tuple(
        Weight(t.name, t.type, t.n_bytes, chosen_only="_exps." in t.name)
        for t in reader.read_header(path).tensors.values()
    )
