"""Pictures to features, on the runtime of each format: one file for each, of the same name as its engine.

`load(folder, bundle, session, *, threads=None)` gives an `Encoder`. A session is there already
when an encoder is loaded: llama.cpp's needs its model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.pixels import Views


@runtime_checkable
class Encoder(Protocol):
    """The vision part of a model. One thread at a time."""

    def encode(self, views: Views) -> np.ndarray:
        """Features of one picture, float32 `(views.n_tokens, hidden)`, ready for `Session.feed_embeddings`."""
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...
