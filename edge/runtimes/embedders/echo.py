"""States without a model: that of a token is its id, written in eight bits, for bundles whose plan names a pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.bundle import Bundle
from edge.runtimes.embedders import Pooling
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np


class EchoEmbedder:
    """See `edge.runtimes.embedders.Embedder`."""

    width = 8
    most = 4

    def __init__(self, session: Session, pooling: Pooling) -> None:
        self._session = session
        self.pooling: Pooling = pooling

    def states(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._session.feed(tokens)
        return np.array([[t >> bit & 1 for bit in range(self.width)] for t in tokens], np.float32)


def load(session: Session, bundle: Bundle) -> EchoEmbedder | None:
    """An embedder for a bundle of format `echo` whose plan has a `pooling`."""
    pooling = bundle.plan.get("pooling")
    return EchoEmbedder(session, pooling) if pooling else None
