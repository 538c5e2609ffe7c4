"""The fake that ships: no weights; says back what it was told, then stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle import Bundle
from edge.errors import InputError, UsageError
from edge.runtimes.session import ContextFull

if TYPE_CHECKING:
    import numpy as np

EXTRA = "all"  # needs nothing that is not always there
_SURE = 100.0  # a logit that every temperature in use draws


class EchoSession:
    """Predicts, one token after the other, what was said before it.

    1. Once a stop token is in the cache, as after every turn of a chat template, it repeats what
       stands between the last two stops, then stops. Both turns open with headers of the same
       length, so the answer is the words of the turn before. This depends on the tokens alone.
    2. Before that, it repeats the last prompt: what was fed last in more than one token.
    """

    def __init__(self, vocab_size: int = 256, context_length: int = 1024, stop_id: int = 0) -> None:
        self.vocab_size, self.context_length, self.stop_id = vocab_size, context_length, stop_id
        self._tokens: list[int] = []
        self._start, self._length = 0, 0  # the last prompt
        self._closed = False

    @property
    def position(self) -> int:
        return len(self._tokens)

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        self._append(tokens)
        return self._logits(len(self._tokens))

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._append(tokens)
        end = len(self._tokens)
        return np.stack([self._logits(i + 1) for i in range(end - len(tokens), end)])

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        """An embedding of one number is the token of that id."""
        import numpy as np

        rows = np.asarray(embeddings)
        if rows.ndim != 2 or rows.shape[1] != 1:
            raise UsageError(f"wanted embeddings of shape (n, 1), found {rows.shape}")
        return self.feed([int(i) for i in rows[:, 0]])

    def rewind(self, n_tokens: int) -> None:
        self._open()
        if not 0 <= n_tokens <= len(self._tokens):
            raise UsageError(f"cannot rewind to {n_tokens}: the cache holds {len(self._tokens)} tokens")
        del self._tokens[n_tokens:]
        if n_tokens < self._start + self._length:
            self._start, self._length = 0, n_tokens

    def another(self) -> EchoSession:
        """A session of the same kind, with a cache of its own."""
        self._open()
        return EchoSession(self.vocab_size, self.context_length, self.stop_id)

    def keep(self) -> list[np.ndarray]:
        """What the cache holds, for `restore`."""
        import numpy as np

        self._open()
        return [np.array([self._start, self._length, *self._tokens], np.int64)]

    def restore(self, n_tokens: int, kept: Sequence[np.ndarray]) -> None:
        """Hold what was kept instead. `InputError` when it does not fit; the cache is as it was then."""
        self._open()
        start, length, *tokens = (int(i) for i in kept[0])
        if len(tokens) != n_tokens:
            raise InputError("this cache has another length than it says")
        self._start, self._length, self._tokens = start, length, tokens

    def close(self) -> None:
        self._tokens.clear()
        self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise UsageError("this session is closed", hint="open the bundle again")

    def _append(self, tokens: Sequence[int]) -> None:
        self._open()
        if not len(tokens):
            raise UsageError("there is nothing to feed: no tokens were given")
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                raise UsageError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        if len(self._tokens) + len(tokens) > self.context_length:
            raise ContextFull(len(self._tokens), len(tokens), self.context_length)
        if len(tokens) > 1 or not self._length:
            self._start, self._length = len(self._tokens), len(tokens)
        self._tokens.extend(int(t) for t in tokens)

    def _logits(self, end: int) -> np.ndarray:
        import numpy as np

        row = np.zeros(self.vocab_size, np.float32)
        row[self._next(end)] = _SURE
        return row

    def _next(self, end: int) -> int:
        stop = self._last_stop(end)
        if stop >= 0:
            start = self._last_stop(stop) + 1
            said = start + (end - stop - 1)
            return self._tokens[said] if said < stop else self.stop_id
        said = end - (self._start + self._length)
        return self._tokens[self._start + said] if 0 <= said < self._length else self.stop_id

    def _last_stop(self, end: int) -> int:
        """Where the last stop token before `end` is, or -1."""
        for i in range(end - 1, -1, -1):
            if self._tokens[i] == self.stop_id:
                return i
        return -1


def load(folder: Path, bundle: Bundle, *, threads: int | None = None, context_length: int | None = None) -> EchoSession:
    """A session for any bundle of format `echo`; its model file is not read."""
    stop_id = bundle.stop_ids[0] if bundle.stop_ids else 0
    return EchoSession(bundle.vocab_size, context_length or bundle.context_length, stop_id)


def build() -> dict[str, str]:
    """What runs: package names and versions, for manifests and measurements."""
    return {"echo": "1"}
