"""The Session protocol, and token generation on top of it, written once for all runtimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

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


def keep_first(session: Session, n_tokens: int) -> int:
    """Keep the first `n_tokens` of the cache, or nothing where it can only be emptied; how many are kept."""
    if n_tokens < session.position:
        try:
            session.rewind(n_tokens)
        except EdgeError:
            # Some memories (recurrent layers) can only be emptied.
            if n_tokens == 0:
                raise
            session.rewind(0)
            return 0
    return n_tokens


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


_LIKELY = 12.0  # nats below the best; the best few dozen tokens are nearly always within

Mask = Callable[["np.ndarray", Sequence[int]], "np.ndarray | int"]


def pick(logits: np.ndarray, sampling: Sampling, history: Sequence[int], rng: np.random.Generator) -> int:
    """The next token id from logits `(vocab,)`. Ties go to the lowest id."""
    import numpy as np

    # The first of the largest; a NaN counts as larger than everything, so one look finds it too.
    best = int(logits.argmax())
    top = logits[best]
    if not np.isfinite(top):
        raise EdgeError(
            "the model returned logits that are not numbers", hint="check the bundle with: edge inspect BUNDLE --check"
        )
    if sampling.repeat_penalty != 1.0 and len(history):
        logits = logits.copy()
        seen = np.unique(np.asarray(history))
        values = logits[seen]
        logits[seen] = np.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
        best = int(logits.argmax())
        top = logits[best]
    if sampling.temperature == 0:
        return best
    ids, p, total = _candidates((logits - top) / np.float32(sampling.temperature), sampling)
    if sampling.top_p < 1:
        keep = int(np.searchsorted(np.cumsum(p), sampling.top_p * total)) + 1
        ids, p = ids[:keep], p[:keep]
    if sampling.min_p:
        good = p >= sampling.min_p * p[0]
        ids, p = ids[good], p[good]
    edges = np.cumsum(p)
    drawn = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return int(ids[min(drawn, len(ids) - 1)])


def _candidates(scaled: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, float]:
    """Ids that can still be drawn, their weights in float64, and the weight of all that `top_p` shares out.

    The most likely comes first and weighs 1. Sorting a whole vocabulary takes longer than a
    small model's token, so what no filter can keep is left out before: by `top_k` all but k;
    by `top_p` the ids that together weigh less than 1 - top_p; by `min_p` those below it.
    """
    import numpy as np

    if sampling.top_k and sampling.top_k < len(scaled):
        ids = np.flatnonzero(scaled > -_LIKELY)
        if len(ids) < sampling.top_k:
            # What a grammar forbids has no weight, and sorting all of it takes longer than a token.
            ids = np.flatnonzero(scaled > -np.inf)
        beyond = max(0, len(ids) - sampling.top_k)
        least = np.partition(scaled[ids], beyond)[beyond]
        ids = ids[scaled[ids] >= least]
        ids = ids[np.argsort(-scaled[ids], kind="stable")][: sampling.top_k]
        p = np.exp(scaled[ids], dtype=np.float64)
        return ids, p, float(p.sum())
    p = np.exp(scaled)
    total = float(p.sum(dtype=np.float64))
    if sampling.top_p == 1 and not sampling.min_p:
        return np.arange(len(p)), p.astype(np.float64), total
    ids = np.flatnonzero(p >= max((1 - sampling.top_p) * total / len(p), sampling.min_p))
    ids = ids[np.argsort(-scaled[ids], kind="stable")]
    return ids, p[ids].astype(np.float64), total


StopReason = Literal["end", "length", "context"]


def generate(
    session: Session,
    prompt: Sequence[int],
    sampling: Sampling | None = None,
    *,
    stop_ids: Sequence[int] = (),
    mask: Mask | None = None,
    feed: Callable[[int], np.ndarray] | None = None,
) -> Generator[Token, None, StopReason]:
    """Feed `prompt`, then yield tokens until a stop id, `max_tokens` or the context's end.

    The stop id itself is not yielded. The last token yielded is not yet in the cache.
    `mask` gets the logits and the ids generated so far, and returns changed logits, or the token
    that it has drawn itself. `feed` takes the place of `session.feed` for single tokens
    (`edge.runtimes.ahead`). The generator's return value says which of the three ends it was.
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
        return "length"
    logits = session.feed(prompt)
    while True:
        now = time.perf_counter_ns()
        shaped = logits if mask is None else mask(logits, out)
        token = shaped if isinstance(shaped, int) else pick(shaped, sampling, out, rng)
        if token in stops:
            return "end"
        out.append(token)
        yield Token(token, now)
        if len(out) >= sampling.max_tokens:
            return "length"
        if session.position >= session.context_length:
            return "context"
        logits = feed(token) if feed else session.feed((token,))
