"""Guesses ahead: by prompt lookup, and by a smaller model where one was given.

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

from edge.runtimes.lookup import Lookup
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.draft import Draft, Tried

# The chance that a guessed token comes true, by the number of words that were found again (`lookup.LONGEST` at most):
# where to begin from.
_AT_FIRST = (0.0, 0.15, 0.4, 0.55, 0.66, 0.75, 0.83, 0.9, 0.95)
_MOST = 16  # tokens of a guess
_LEARNS, _BEGINS = 0.1, 3  # how much the latest guess counts; for how many guesses that beginning stands
# What a further token of a call costs, in single ones, until it is measured; an odd measurement does not outweigh it.
_COST, _COST_COUNTS = 0.2, 2
_COSTS_KEPT = 9
MARGIN = 1.05  # what guesses have to give at least, in single tokens for the time of one
_TO_COME = 64  # tokens that an answer is expected to go on for, at least
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


class _Chances:
    """The chance that the first, the first two, ... tokens of a guess come true."""

    def __init__(self, chances: Sequence[float]) -> None:
        self._chances = list(chances)
        self._seen = _BEGINS

    def expected(self, n_tokens: int) -> float:
        """How many of `n_tokens` come true."""
        return sum(self._chances[:n_tokens])

    def learn(self, right: int, known: int) -> None:
        """Of a guess, so many tokens came true; whether is `known` of so many."""
        self._seen += 1
        learns = max(_LEARNS, 1 / self._seen)
        for k, chance in enumerate(self._chances[:known]):
            self._chances[k] += learns * ((k < right) - chance)


@dataclass
class _Guess:
    """What may come next; how many of it came true so far. `chances` are those of guesses like this one.

    `rows` are the logits after each token of it, as `way` gives them, or none.
    """

    chances: _Chances
    left: list[int]
    right: int = 0
    way: Way | None = None
    rows: list[np.ndarray] = field(default_factory=list)


class Ahead:
    """Feeds one session and guesses. What it has learned outlives an answer, and what is `known` may be another's.

    With a `draft` goes what was found when it was `tried` here.
    """

    def __init__(
        self, session: Peeking, *, known: Known | None = None, draft: Draft | None = None, tried: Tried | None = None
    ) -> None:
        self.guessed = self.accepted = 0  # tokens, since `begin`
        self.known = known or Known()
        self._session = session
        self._lookup = Lookup()
        # By the number of words that were found again.
        self._found = [_Chances([chance ** (k + 1) for k in range(_MOST)]) for chance in _AT_FIRST]
        self._drafts = (draft, tried) if draft and tried else None
        self._drafted = _Chances(())
        self._n_fed = 0  # tokens of this answer
        self._singles_s: deque[float] = deque(maxlen=15)
        self._fed_s = self._tried_s = 0.0
        self._believed: _Guess | None = None
        self._watched: _Guess | None = None  # one that was not believed: to see whether it would have come true

    def begin(self, conversation: Sequence[int]) -> None:
        """Forget the words of the last answer, and know these, which the session holds or will hold."""
        self.guessed = self.accepted = self._n_fed = 0
        self._lookup.begin(conversation)
        if self._drafts:
            draft, tried = self._drafts
            draft.begin(conversation)
            self._drafted = _Chances(tried.chances)
        self._believed = self._watched = None

    def feed(self, token: int) -> np.ndarray:
        """As `session.feed`, with one token."""
        self._n_fed += 1
        self._lookup.add(token)
        if self._drafts:
            self._drafts[0].add(token)
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
        if not (self._watched and self._watched.way):
            found = self._lookup.find()
            way, drafts = self._best(found) if found or self._drafts else (None, False)
            said = self._guess(way, found, drafts=drafts)
            if way and said and self.known.trusted(way):
                return self._peek(token, said, way)
            if way and said and not tried:
                tried = way, self._try(token, said, way)
            self._watched = self._watched or said
        began = time.perf_counter()
        logits = self._session.feed((token,))
        self._singles_s.append(time.perf_counter() - began)
        self._fed_s += self._singles_s[-1]
        if tried:
            self.known.note(tried[0], same=bool((tried[1] == logits).all()))
        return logits

    def gain_of_drafts(self, tried: Tried) -> float:
        """What guesses of a model that was `tried` give at best, in single tokens for the time of one."""
        chances = _Chances(tried.chances)
        return max((_gain(self.known, way, chances, tried) for way in self._usable()), default=0.0)

    def _guess(self, way: Way | None, found: int, *, drafts: bool) -> _Guess | None:
        """What may come next, as much as goes with the way, or to be watched."""
        if drafts and way and self._drafts:
            began = time.perf_counter()
            left = self._drafts[0].guess(way.size - 1)
            self._fed_s += time.perf_counter() - began
            # A word that it cannot say comes true as seldom as any other.
            return _Guess(self._drafted, left + [0] * (way.size - 1 - len(left))) if left else None
        if not found:
            return None
        ahead = way or max(self._usable(), default=None)
        return _Guess(self._found[found], self._lookup.guess(min(ahead.size - 1, _MOST))) if ahead else None

    def _usable(self) -> list[Way]:
        return [way for way in self._session.ways if not self.known.refused(way)]

    def _best(self, found: int) -> tuple[Way | None, bool]:
        """The way that gives most tokens for its time, and whether to draft for it.

        None where single tokens do, or none was timed yet.
        """
        best, drafts, most = None, False, MARGIN
        for way in self._usable() if self._singles_s else ():
            cost = self.known.cost(way)
            if not (self.known.trusted(way) or self._can_try(cost)):
                continue
            if found and (gain := (1 + self._found[found].expected(way.size - 1)) / cost) >= most:
                best, drafts, most = way, False, gain
            if self._drafts:
                draft, tried = self._drafts
                gain = _gain(self.known, way, self._drafted, tried)
                # What it has to read first must be saved again before the answer is likely to end.
                still = max(self._n_fed, _TO_COME)
                if gain > most and draft.behind * tried.reading <= (1 - 1 / gain) * still:
                    best, drafts, most = way, True, gain
        return best, drafts

    def _can_try(self, cost: float) -> bool:
        return self._tried_s + cost * self._singles_s[-1] <= _SHARE * self._fed_s

    def _rows(self, token: int, guess: _Guess, way: Way) -> np.ndarray:
        """Peek at the token and the guess."""
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
        guess.chances.learn(guess.right, guess.right + (not came_true) + len(guess.left))
        return True


def _gain(known: Known, way: Way, chances: _Chances, tried: Tried) -> float:
    """What drafting for this way gives, in single tokens for the time of one."""
    n = way.size - 1
    return (1 + chances.expected(n)) / (known.cost(way) + n * tried.cost)
