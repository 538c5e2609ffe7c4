"""Experts in TFLite: what their matrices are called there, and what they hold.

litert-torch computes every expert for every token, one after the other, and multiplies by the router's weights
(`litert_moe_sequential`; its operator that computes only the chosen ones cannot be converted with the
versions pinned here). Gate and up of an expert are one matrix, one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from edge.export import experts
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.experts import Layer

if TYPE_CHECKING:
    import numpy as np

    from edge.export.smooth import Factor

IMPLEMENTATION = "litert_moe_sequential"


class Matrix(NamedTuple):
    """One matrix of an expert in the file: gate and up together, or down."""

    name: str
    layer: Layer
    expert: int
    down: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """What calibration knows its rows as."""
        gate, up, down = self.layer.keys(self.expert)
        return (down,) if self.down else (gate, up)

    def read(self, checkpoint: Checkpoint) -> np.ndarray:
        import numpy as np

        gate, up, down = experts.read(checkpoint, self.layer, self.expert)
        return down if self.down else np.concatenate([gate, up])


def matrices(checkpoint: Checkpoint) -> Iterator[Matrix]:
    """Every matrix of every expert, in the order of the layers."""
    for layer in experts.layers(checkpoint):
        for e in range(experts.count(checkpoint.config)):
            front = f"model.layers.{layer.index}.experts.{e}"
            yield Matrix(f"{front}.gate_up", layer, e, down=False)
            yield Matrix(f"{front}.down", layer, e, down=True)


def sources(checkpoint: Checkpoint) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Which tensors of the checkpoint become which of the file: (sources, targets)."""
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    stacked: dict[str, list[str]] = {}
    for matrix in matrices(checkpoint):
        if matrix.layer.stacked is None:
            found.append((matrix.keys, (matrix.name,)))
        else:
            stacked.setdefault(matrix.layer.stacked[matrix.down], []).append(matrix.name)
    return found + [((source,), tuple(targets)) for source, targets in stacked.items()]


def factors(made: Mapping[str, Factor], checkpoint: Checkpoint) -> dict[str, Factor]:
    """What `edge.export.smooth` says of experts, under the names of their matrices here."""
    import numpy as np

    from edge.export.smooth import Factor

    found = {}
    for matrix in matrices(checkpoint):
        parts = [made.get(key, Factor()) for key in matrix.keys]
        if all(part.rows is None and part.columns is None for part in parts):
            continue
        if matrix.down:
            found[matrix.name] = parts[0]
            continue
        # Gate and up are fed the same, so their columns have the same factors.
        inner = matrix.read(checkpoint).shape[0] // 2
        rows = [np.ones(inner, np.float32) if part.rows is None else part.rows for part in parts]
        found[matrix.name] = Factor(np.concatenate(rows), parts[0].columns)
    return found


def entry(source: tuple[str, ...], target: tuple[str, ...], kind: str, n_elements: int, n_bytes: int) -> Entry:
    transform = "split" if len(target) > 1 else "pack" if len(source) > 1 else "copy"
    return Entry(source, target, kind, n_elements, n_bytes, transform)
