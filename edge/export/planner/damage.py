"""What it costs to store a matrix in fewer bits: the real rounding of real weights, weighed by how much they matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edge.export import experts
from edge.export.checkpoint import Checkpoint
from edge.export.planner.sensitivity import Sensitivity

if TYPE_CHECKING:
    import numpy as np

_ROWS = 128  # of a matrix, of each of two kinds: those that matter most, and some of the rest


def of(
    checkpoint: Checkpoint,
    sensitivity: Sensitivity,
    sources: Sequence[str],
    types: Sequence[str],
    rounded: Callable[[str, np.ndarray, str], np.ndarray],
) -> dict[str, float]:
    """For each type, half of e F e over all matrices of `sources`: tensors, or experts as `Layer.keys` calls them.

    `rounded(name, rows, type)` gives `rows` float32 `(n, columns)` of the matrix `name` as the type stores them. Rows
    are rounded each by itself, so not all are looked at: those that matter most, and evenly some of the rest, which
    stand for the others in proportion to how much these matter.
    """
    out = dict.fromkeys(types, 0.0)
    for source in sources:
        for name, matrix in _matrices(checkpoint, source):
            if name not in sensitivity.rows:
                continue
            for rows, stand_for in _picked(sensitivity.rows[name]):
                part = matrix[rows]
                for kind in types:
                    errors = (rounded(name, part, kind) - part) ** 2
                    out[kind] += float(sensitivity.damage(name, errors, rows).sum()) * stand_for
    return out


def known(checkpoint: Checkpoint, sensitivity: Sensitivity, source: str) -> bool:
    """Whether anything is known of how much a tensor, or an expert's matrix, matters."""
    return source in sensitivity.rows or any(source in (layer.stacked or ()) for layer in experts.layers(checkpoint))


def _picked(weight: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Rows to look at, and what they stand for."""
    import numpy as np

    if len(weight) <= 2 * _ROWS:
        yield np.arange(len(weight)), 1.0
        return
    order = np.argsort(-weight, kind="stable")
    yield np.sort(order[:_ROWS]), 1.0
    rest = np.sort(order[_ROWS:])
    some = rest[:: max(1, len(rest) // _ROWS)]
    yield some, float(weight[rest].sum() / max(1e-30, weight[some].sum()))


def _matrices(checkpoint: Checkpoint, source: str) -> Iterator[tuple[str, np.ndarray]]:
    """The matrices in a tensor, as `Sensitivity` calls them; of a matrix that is a part of one, just that."""
    stacked = {name for layer in experts.layers(checkpoint) for name in layer.stacked or ()}
    if source in checkpoint.tensors and source not in stacked:
        yield source, checkpoint.read(source)
        return
    for layer in experts.layers(checkpoint):
        for e in range(experts.count(checkpoint.config)):
            keys = layer.keys(e)
            wanted = [key == source or key.startswith(f"{source}#") for key in keys]
            if any(wanted):
                read = zip(keys, experts.read(checkpoint, layer, e), wanted, strict=True)
                yield from ((key, matrix) for key, matrix, chosen in read if chosen)
