"""The fake that ships: no weights, gives the prompt back token by token, then stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle import Bundle
from edge.errors import UsageError
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np


class EchoSession:
    """After n prompt tokens it predicts prompt[0], prompt[1], ... then `stop_id`.

    `feed` with more than one token starts a new prompt to echo.
    """

    def __init__(self, vocab_size: int = 256, context_length: int = 1024, stop_id: int = 0) -> None:
        self.vocab_size, self.context_length, self.stop_id = vocab_size, context_length, stop_id
        self._tokens: list[int] = []
        self._start, self._length = 0, 0

    @property
    def position(self) -> int:
        return len(self._tokens)

    def _append(self, tokens: Sequence[int]) -> None:
        if len(self._tokens) + len(tokens) > self.context_length:
            raise ContextFull(len(self._tokens), len(tokens), self.context_length)
        if len(tokens) > 1 or not self._length:
            self._start, self._length = len(self._tokens), len(tokens)
        self._tokens.extend(tokens)

    def _logits(self, end: int) -> np.ndarray:
        import numpy as np

        said = end - (self._start + self._length)
        row = np.zeros(self.vocab_size, np.float32)
        row[self._tokens[self._start + said] if 0 <= said < self._length else self.stop_id] = 1.0
        return row

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        self._append(tokens)
        return self._logits(len(self._tokens))

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._append(tokens)
        end = len(self._tokens)
        return np.stack([self._logits(i + 1) for i in range(end - len(tokens), end)])

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        raise UsageError("the echo runtime has no embeddings: it repeats token ids")

    def rewind(self, n_tokens: int) -> None:
        if not 0 <= n_tokens <= len(self._tokens):
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {len(self._tokens)} tokens")
        del self._tokens[n_tokens:]
        if n_tokens < self._start + self._length:
            self._start, self._length = 0, n_tokens

    def close(self) -> None:
        self._tokens.clear()


def load(folder: Path, bundle: Bundle, *, threads: int | None = None, context_length: int | None = None) -> EchoSession:
    """A session for any bundle of format `echo`; its model file is not read."""
    stop_id = bundle.stop_ids[0] if bundle.stop_ids else 0
    return EchoSession(bundle.vocab_size, context_length or bundle.context_length, stop_id)


def build() -> dict[str, str]:
    """What runs: package names and versions, for manifests and measurements."""
    return {"echo": "1"}
