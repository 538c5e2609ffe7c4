"""Prompt lookup: what followed the last words earlier in a conversation may follow them again.

A session that can `peek` gives the logits after several tokens at once, bit for bit those that it gives one by one.
So a guess changes no answer, only when its tokens come: whoever picks tokens is given the same logits in the same
order, whether greedily, by chance or under a grammar. A guess that fails costs time. It is made only where, after
what was guessed and measured so far, it saves some.

Whether kernels compute several tokens as they compute one depends on the processor. So each way to look ahead is tried
first: what it gives is put aside and held against single tokens, and is used once it was the same often enough. That
takes a small share of the time, and is remembered.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

_SHORTEST = (2, 1)  # words that have to be found again; one where there are no two
_LONGEST = 8  # more words found again say no more about what follows
_PLACES = 24  # of those where the last words stood, how many are compared; the latest first
# The chance that a guessed token comes true, by the number of words that were found again: where to begin from.
_AT_FIRST = (0.0, 0.15, 0.4, 0.55, 0.66, 0.75, 0.83, 0.9, 0.95)
_MOST = 16  # tokens of a guess
_LEARNS, _BEGINS = 0.1, 3  # how much the latest guess counts; for how many guesses that beginning stands
# What a further token of a call costs, in single ones, until it is measured; an odd measurement does not outweigh it.
_COST, _COST_COUNTS = 0.2, 2
_COSTS_KEPT = 9
_MARGIN = 1.05
_ROWS_TRIED = 2  # times the size of a way, before it is used
_SHARE = 0.05  # of the time, at most, goes into trying


class Way(NamedTuple):
    """So many tokens can be looked at together; `kernels` names what computes them from here."""

    size: int
    kernels: str


class Peeking(Session, Protocol):
    """A session that may know what it would say after several tokens before it holds them."""

    @property
    def ways(self) -> Sequence[Way]:
        """How `peek` can be asked now; none where it cannot."""
        ...

    def peek(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits `(n, vocab)` after each of the tokens, as many as a way says; none of them is held yet.

        They are valid until something else is fed or peeked at.
        """
        ...

    def take(self) -> None:
        """Hold the next of the tokens that were peeked at, as if it had been fed."""
        ...


class Known:
    """Of each way to look ahead, whether it gives what single tokens give, bit for bit, and what a call costs."""

    def __init__(self) -> None:
        self.news = False  # whether a way was tried since this was written down
        self._same: dict[str, int] = {}  # rows
        self._other: set[str] = set()
        self._costs: dict[str, deque[float]] = {}  # in single tokens
        self._each: deque[float] = deque([_COST], maxlen=_COSTS_KEPT)  # what a further token cost in the latest calls

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Known:
        """What `told` told once, or nothing."""
        known = cls()
        try:
            known._same = {str(name): int(rows) for name, rows in told.get("same", {}).items()}
            known._other = set(map(str, told.get("other", ())))
            for name, cost in told.get("costs", {}).items():
                known._costs[str(name)] = deque([float(cost)] * _COST_COUNTS, maxlen=_COSTS_KEPT)
        except (TypeError, ValueError, AttributeError):
            return cls()
        return known

    def told(self) -> dict[str, Any]:
        costs = {name: round(statistics.median(costs), 3) for name, costs in self._costs.items()}
        return {"same": self._same, "other": sorted(self._other), "costs": costs}

    def refused(self, way: Way) -> bool:
        return way.kernels in self._other

    def trusted(self, way: Way) -> bool:
        return not self.refused(way) and self._same.get(way.kernels, 0) >= _ROWS_TRIED * way.size

    def note(self, way: Way, *, same: bool) -> None:
        """One row was the same as that of a single token, or another: that is never forgotten."""
        self.news = True
        if same:
            self._same[way.kernels] = self._same.get(way.kernels, 0) + 1
        else:
            self._other.add(way.kernels)

    def cost(self, way: Way) -> float:
        """Of a call, in single tokens; guessed from other ways until this one was measured."""
        known = self._costs.get(way.kernels)
        return statistics.median(known) if known else 1 + statistics.median(self._each) * (way.size - 1)

    def took(self, way: Way, cost: float) -> None:
        at_first = [self.cost(way)] * _COST_COUNTS
        self._costs.setdefault(way.kernels, deque(at_first, maxlen=_COSTS_KEPT)).append(cost)
        self._each.append((cost - 1) / (way.size - 1))


@dataclass
class _Guess:
    """What may come next, after so many words that were `found` again; how many of it came true so far.

    `rows` are the logits after each token of it, as `way` gives them, or none.
    """

    found: int
    left: list[int]
    right: int = 0
    way: Way | None = None
    rows: list[np.ndarray] = field(default_factory=list)


class Lookup:
    """Feeds one session and guesses. What it has learned outlives an answer, and what is `known` may be another's."""

    def __init__(self, session: Peeking, *, known: Known | None = None) -> None:
        self.guessed = self.accepted = 0  # tokens, since `begin`
        self.known = known or Known()
        self._session = session
        self._words: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        # By the number of words that were found: the chance that the first, the first two, ... tokens come true.
        self._chances = [[chance ** (k + 1) for k in range(_MOST)] for chance in _AT_FIRST]
        self._seen = [_BEGINS] * len(_AT_FIRST)
        self._singles_s: deque[float] = deque(maxlen=15)
        self._fed_s = self._tried_s = 0.0
        self._believed: _Guess | None = None
        self._watched: _Guess | None = None  # one that was not believed: to see whether it would have come true

    def begin(self, conversation: Sequence[int]) -> None:
        """Forget the words of the last answer, and know these, which the session holds or will hold."""
        self.guessed = self.accepted = 0
        self._words, self._places = [], {}
        self._believed = self._watched = None
        for word in conversation:
            self._add(word)

    def feed(self, token: int) -> np.ndarray:
        """As `session.feed`, with one token."""
        self._add(token)
        if self._believed:
            guess, right = self._believed, self._believed.right
            if self._see(guess, token):
                self._believed = None
            if guess.right > right:
                self.accepted += 1
                self._session.take()
                return guess.rows.pop(0)
        tried = None  # the way that gave a row for this very token, and the row
        if watched := self._watched:
            if watched.way and watched.left[0] == token:
                tried = watched.way, watched.rows.pop(0)
            if self._see(watched, token):
                self._watched = None
        if not (self._watched and self._watched.way) and (found := self._look()):
            way = self._best(found.found)
            if way and self.known.trusted(way):
                return self._peek(token, found, way)
            if way and not tried:
                tried = way, self._try(token, found, way)
            self._watched = self._watched or found
        began = time.perf_counter()
        logits = self._session.feed((token,))
        self._singles_s.append(time.perf_counter() - began)
        self._fed_s += self._singles_s[-1]
        if tried:
            self.known.note(tried[0], same=bool((tried[1] == logits).all()))
        return logits

    def _add(self, word: int) -> None:
        self._words.append(word)
        for n in _SHORTEST:
            if len(self._words) >= n:
                self._places.setdefault(tuple(self._words[-n:]), []).append(len(self._words))

    def _look(self) -> _Guess | None:
        """What followed where most of the last words stood before; the latest such place."""
        words, n = self._words, len(self._words)
        found = place = 0
        known = (self._places.get(tuple(words[-shortest:]), [])[-_PLACES - 1 : -1] for shortest in _SHORTEST)
        for at in reversed(next(filter(None, known), [])):
            same = 1
            while same < min(_LONGEST, at) and words[at - 1 - same] == words[n - 1 - same]:
                same += 1
            if same > found:
                found, place = same, at
        if not found:
            return None
        ahead = max((way.size - 1 for way in self._session.ways if not self.known.refused(way)), default=0)
        left: list[int] = []
        # What repeats itself is guessed to go on: behind the last word stands the guess.
        for i in range(min(ahead, _MOST)):
            left.append(words[place + i] if place + i < n else left[place + i - n])
        return _Guess(found, left) if left else None

    def _best(self, found: int) -> Way | None:
        """The way that gives most tokens for its time; None where single ones do, or none was timed yet."""
        best, most = None, _MARGIN
        for way in self._session.ways if self._singles_s else ():
            cost = self.known.cost(way)
            gain = (1 + sum(self._chances[found][: way.size - 1])) / cost
            if gain >= most and not self.known.refused(way) and (self.known.trusted(way) or self._can_try(cost)):
                best, most = way, gain
        return best

    def _can_try(self, cost: float) -> bool:
        return self._tried_s + cost * self._singles_s[-1] <= _SHARE * self._fed_s

    def _rows(self, token: int, guess: _Guess, way: Way) -> np.ndarray:
        """Peek at the token and as much of the guess as goes with it."""
        del guess.left[way.size - 1 :]
        began = time.perf_counter()
        rows = self._session.peek((token, *guess.left))
        took_s = time.perf_counter() - began
        self.known.took(way, took_s / statistics.median(self._singles_s))
        if self.known.trusted(way):
            self._fed_s += took_s
        else:
            self._tried_s += took_s
        return rows

    def _peek(self, token: int, guess: _Guess, way: Way) -> np.ndarray:
        rows = self._rows(token, guess, way)
        self._session.take()
        self.guessed += len(guess.left)
        guess.rows = list(rows[1:])
        self._believed, self._watched = guess, None
        first: np.ndarray = rows[0]
        return first

    def _try(self, token: int, guess: _Guess, way: Way) -> np.ndarray:
        """Peek without taking: the row after this token; the guess is watched, with the rows to compare."""
        rows = self._rows(token, guess, way).copy()
        guess.way, guess.rows = way, list(rows[1:])
        self._watched = guess
        first: np.ndarray = rows[0]
        return first

    def _see(self, guess: _Guess, token: int) -> bool:
        """Whether this was the last of a guess that could come true, which teaches what to expect of others."""
        came_true = guess.left.pop(0) == token
        guess.right += came_true
        if came_true and guess.left:
            return False
        self._seen[guess.found] += 1
        learns = max(_LEARNS, 1 / self._seen[guess.found])
        chances = self._chances[guess.found]
        for k in range(guess.right + (not came_true) + len(guess.left)):
            chances[k] += learns * ((k < guess.right) - chances[k])
        return True
