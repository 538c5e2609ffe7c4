"""Texts to vectors, on the runtime of each format that can: one file for each, of the same name as its engine.

`load(session, bundle)` gives an `Embedder`, or None for a model that was not made for it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from edge.errors import UsageError
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.model import Model

Pooling = Literal["mean", "cls", "last"]


@runtime_checkable
class Embedder(Protocol):
    """The states behind a session's logits. One thread at a time.

    `pooling` says which of them are a text's vector of `width` numbers: their mean, the first or the last; `most`
    is how many tokens can be fed at once.
    """

    pooling: Pooling
    width: int
    most: int

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        """Append tokens to the session; the state of each, float32 `(n, width)`, yours to keep."""
        ...


def steps(model: Model, ids: Sequence[int], *, chunk: int) -> Generator[int, None, np.ndarray]:
    """The vector of a text, of length 1: float32 `(width,)`. After every `chunk` tokens, how many were read.

    What the cache has in common with the text is not read again. Raises `UsageError` for a text without tokens and
    for a model that gives no vectors, `ContextFull` for one that does not fit, before anything changes.
    """
    import numpy as np

    embedder = model.embedder
    if embedder is None:
        raise UsageError(f"{model.bundle.name} makes text and no embeddings")
    if not ids:
        raise UsageError("there is nothing to embed: no tokens were given")
    if len(ids) > model.context_length:
        raise ContextFull(0, len(ids), model.context_length)
    if embedder.pooling == "cls":
        ids = ids[:1]  # tokens see what came before them alone, so nothing else has a part in it
    # A mean is of all states, and those of what is in the cache are gone.
    mean = embedder.pooling == "mean"
    read = model.keep_first(0 if mean else min(model.reusable(ids), len(ids) - 1))
    total = np.zeros(embedder.width, np.float64)
    try:
        while read < len(ids):
            left = len(ids) - read
            n = min(chunk, embedder.most, left) if mean else max(1, min(chunk, left - 1))
            if mean or left == 1:
                total += embedder.states(ids[read : read + n]).sum(0, dtype=np.float64)
            else:
                model.session.feed(ids[read : read + n])
            read += n
            yield read
    finally:
        model.hold(ids[: model.session.position])
    return unit(total)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector with a length of 1, float32; one of nothing but zeros stays as it is."""
    import numpy as np

    length = float(np.linalg.norm(np.asarray(vector, np.float64)))
    return np.asarray(vector / length if length else vector, np.float32)
