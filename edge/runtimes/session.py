"""The Session protocol, and token generation on top of it, written once for all runtimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edge.errors import EdgeError, UsageError

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Session(Protocol):
    """A loaded model with one KV cache. One thread at a time.

    Token ids go in as any sequence of int. Returned arrays are float32 and stay valid only
    until the next call: copy what you keep. Feeding past `context_length` raises
    `ContextFull` before anything changes.
    """

    context_length: int
    vocab_size: int

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""
        ...

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Append tokens; logits of the last position, shape `(vocab,)`."""
        ...

    def feed_all(self, tokens: Sequence[int]) -> np.ndarray:
        """Append tokens; logits of every position, shape `(n, vocab)`."""
        ...

    def feed_embeddings(self, embeddings: np.ndarray) -> np.ndarray:
        """Append embeddings `(n, hidden)` in the place of tokens; last logits, `(vocab,)`."""
        ...

    def rewind(self, n_tokens: int) -> None:
        """Keep the first `n_tokens` of the cache. What follows is bit-identical to a fresh run."""
        ...

    def close(self) -> None:
        """Free the model; a second call does nothing."""
        ...


class ContextFull(EdgeError):
    """More tokens than the context holds; the session is as it was before the call."""

    def __init__(self, position: int, wanted: int, context_length: int) -> None:
        super().__init__(
            f"the context is full: {position} tokens held, {wanted} more wanted, {context_length} fit",
            hint="start a new conversation, or load with a larger --context",
        )
        self.position, self.wanted, self.context_length = position, wanted, context_length


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. `temperature` 0 is greedy; `seed` None is a fresh seed.

    Filters run in the order penalty, temperature, top_k, top_p, min_p; 0 or 1 turns each off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int = 512

    def __post_init__(self) -> None:
        checks = (
            (self.temperature >= 0, "temperature must be 0 or more"),
            (self.top_k >= 0, "top_k must be 0 or more"),
            (0 < self.top_p <= 1, "top_p must be above 0 and at most 1"),
            (0 <= self.min_p < 1, "min_p must be at least 0 and below 1"),
            (self.repeat_penalty > 0, "repeat_penalty must be above 0"),
            (self.max_tokens >= 0, "max_tokens must be 0 or more"),
        )
        for good, words in checks:
            if not good:
                raise UsageError(words)


@dataclass(frozen=True)
class Token:
    """One generated token: its id, and when its logits were there (`time.perf_counter_ns`)."""

    id: int
    time_ns: int


Mask = Callable[["np.ndarray", Sequence[int]], "np.ndarray"]


def pick(logits: np.ndarray, sampling: Sampling, history: Sequence[int], rng: np.random.Generator) -> int:
    """The next token id from logits `(vocab,)`. Ties go to the lowest id."""
    import numpy as np

    if not np.isfinite(logits.max()):
        raise EdgeError(
            "the model returned logits that are not numbers", hint="check the bundle with: edge inspect BUNDLE --check"
        )
    if sampling.repeat_penalty != 1.0 and len(history):
        logits = logits.copy()
        seen = np.unique(np.asarray(history))
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()).astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    p = np.exp(scaled[order])
    p /= p.sum()
    if sampling.top_p < 1:
        keep = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1
        order, p = order[:keep], p[:keep]
    if sampling.min_p:
        good = p >= sampling.min_p * p[0]
        order, p = order[good], p[good]
    return int(rng.choice(order, p=p / p.sum()))


def generate(
    session: Session,
    prompt: Sequence[int],
    sampling: Sampling | None = None,
    *,
    stop_ids: Sequence[int] = (),
    mask: Mask | None = None,
) -> Iterator[Token]:
    """Feed `prompt`, then yield tokens until a stop id, `max_tokens` or the context's end.

    The stop id itself is not yielded. The last token yielded is not yet in the cache.
    `mask` may return changed logits (a grammar); it gets the ids generated so far.
    Raises `ContextFull` when the prompt itself does not fit, before anything is fed.

    >>> from edge.runtimes.engines import echo
    >>> [t.id for t in generate(echo.EchoSession(), [5, 6, 7], Sampling(max_tokens=3))]
    [5, 6, 7]
    """
    import numpy as np

    sampling = sampling or Sampling()
    if not len(prompt):
        raise UsageError("there is nothing to continue: the prompt is empty")
    rng = np.random.default_rng(sampling.seed)
    stops = frozenset(stop_ids)
    out: list[int] = []
    if sampling.max_tokens == 0:
        return
    logits = session.feed(prompt)
    while True:
        now = time.perf_counter_ns()
        if mask is not None:
            logits = mask(logits, out)
        token = pick(logits, sampling, out, rng)
        if token in stops:
            return
        out.append(token)
        yield Token(token, now)
        if len(out) >= sampling.max_tokens or session.position >= session.context_length:
            return
        logits = session.feed((token,))
