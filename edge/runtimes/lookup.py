"""Prompt lookup: what followed the last words earlier in a conversation may follow them again.

A session that can `peek` gives the logits after several tokens at once, bit for bit those that it gives one by one.
So a guess changes no answer, only when its tokens come: whoever picks tokens is given the same logits in the same
order, whether greedily, by chance or under a grammar. A guess that fails costs time. It is made only where, after
what was guessed and measured so far, it saves some.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

_SHORTEST = 2  # words that have to be found again
_LONGEST = 8  # more words found again say no more about what follows
_PLACES = 24  # of those where the last words stood, how many are compared; the latest first
# How many tokens of a guess came true, by the number of words that were found again: where to begin from.
_AT_FIRST = (0.0, 0.2, 0.6, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0)
_LEARNS = 0.1  # how much the latest guess counts
# Several tokens at once for so many single ones, until it is measured; a few odd measurements do not outweigh it.
_COST, _COST_COUNTS = 1.5, 3
_MARGIN = 1.05


class Peeking(Session, Protocol):
    """A session that may know what it would say after several tokens before it holds them."""

    @property
    def peeks(self) -> int:
        """How many tokens `peek` takes now; 0 where it takes none."""
        ...

    def peek(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` after each of the tokens, those of `feed` bit for bit; none of them is held yet."""
        ...

    def take(self) -> None:
        """Hold the next of the tokens that were peeked at, as if it had been fed."""
        ...


@dataclass
class _Guess:
    """What may come next, after so many words that were `found` again; how many of it came true so far."""

    found: int
    left: list[int]
    right: int = 0


class Lookup:
    """Feeds one session and guesses. What it has learned outlives an answer."""

    def __init__(self, session: Peeking) -> None:
        self.guessed = self.accepted = 0  # tokens, since `begin`
        self._session = session
        self._words: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._expected = list(_AT_FIRST)
        self._costs: deque[float] = deque([_COST] * _COST_COUNTS, maxlen=3 * _COST_COUNTS)
        self._singles_s: deque[float] = deque(maxlen=15)
        self._believed: _Guess | None = None
        self._rows: list[np.ndarray] = []  # the logits after each token that is left of it
        self._watched: _Guess | None = None  # one that was not believed: to see whether it would have come true

    def begin(self, conversation: Sequence[int]) -> None:
        """Forget the words of the last answer, and know these, which the session holds or will hold."""
        self.guessed = self.accepted = 0
        self._words, self._places, self._rows = [], {}, []
        self._believed = self._watched = None
        for word in conversation:
            self._add(word)

    def feed(self, token: int) -> np.ndarray:
        """As `session.feed`, with one token."""
        self._add(token)
        if self._watched and self._see(self._watched, token):
            self._watched = None
        if self._believed:
            rows, right = self._rows, self._believed.right
            ended = self._see(self._believed, token)
            came_true = self._believed.right > right
            self._believed, self._rows = (None, []) if ended else (self._believed, rows[1:])
            if came_true:
                self.accepted += 1
                self._session.take()
                return rows[0]
        if guess := self._look():
            # Not before a single token was timed: what several cost is told by that.
            if self._singles_s and 1 + self._expected[guess.found] >= _MARGIN * statistics.median(self._costs):
                return self._peek(token, guess)
            self._watched = self._watched or guess
        began = time.perf_counter()
        logits = self._session.feed((token,))
        self._singles_s.append(time.perf_counter() - began)
        return logits

    def _add(self, word: int) -> None:
        self._words.append(word)
        if len(self._words) >= _SHORTEST:
            self._places.setdefault(tuple(self._words[-_SHORTEST:]), []).append(len(self._words))

    def _look(self) -> _Guess | None:
        """What followed where most of the last words stood before; the latest such place."""
        words, n = self._words, len(self._words)
        found = place = 0
        for at in reversed(self._places.get(tuple(words[-_SHORTEST:]), [])[-_PLACES - 1 : -1]):
            same = _SHORTEST
            while same < min(_LONGEST, at) and words[at - 1 - same] == words[n - 1 - same]:
                same += 1
            if same > found:
                found, place = same, at
        left: list[int] = []
        # What repeats itself is guessed to go on: behind the last word stands the guess.
        for i in range(self._session.peeks - 1 if found else 0):
            left.append(words[place + i] if place + i < n else left[place + i - n])
        return _Guess(found, left) if left else None

    def _peek(self, token: int, guess: _Guess) -> np.ndarray:
        began = time.perf_counter()
        rows = self._session.peek((token, *guess.left))
        self._session.take()
        self._costs.append((time.perf_counter() - began) / statistics.median(self._singles_s))
        self.guessed += len(guess.left)
        self._believed, self._rows, self._watched = guess, list(rows[1:]), None
        first: np.ndarray = rows[0]
        return first

    def _see(self, guess: _Guess, token: int) -> bool:
        """Whether this was the last of a guess that could come true, which teaches what to expect of others."""
        if guess.left.pop(0) == token:
            guess.right += 1
            if guess.left:
                return False
        self._expected[guess.found] += _LEARNS * (guess.right - self._expected[guess.found])
        return True
