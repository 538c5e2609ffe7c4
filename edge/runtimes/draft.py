"""A smaller model guesses what a larger one will say; `edge.runtimes.ahead` has the larger one check it.

The two may run on different runtimes. Their words are matched by how they are spelled, so a student whose vocabulary
was trimmed guesses for its teacher (Leviathan et al. 2023, arXiv:2211.17192; here a guess counts only if it is the very
token that was picked, so answers by chance stay what they are too).
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError
from edge.runtimes.session import Session, keep_first
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.ahead import Known, Peeking

_LEAST_SHARED = 0.9  # of the words of the one that guesses
_TRIED_TOKENS = 32  # of an answer
_LOOKED_AT = 7  # tokens that come next
_APART = 4  # tokens between two guesses of a trial


class Draft:
    """Guesses greedily, from the words of a conversation. It reads them when it is asked, and not before."""

    def __init__(self, session: Session, spelled: Callable[[int], Sequence[int]], words: Mapping[int, int]) -> None:
        """`spelled` gives its tokens for a word of the other model, `words` the other's word for a token of its own."""
        self.session = session
        self._spelled, self._words = spelled, words
        self._ids: list[int] = []  # the conversation
        self._held: list[int] = []  # what the session holds
        self._same = 0  # so many of both are the same, from the first on

    @classmethod
    def between(cls, session: Session, own: Tokenizer, other: Tokenizer) -> Draft:
        """Guesses in the words of `other`. Raises `UsageError` for vocabularies that have too little in common."""
        mine, theirs = own.vocabulary(), other.vocabulary()
        words = {id: theirs[word] for word, id in mine.items() if word in theirs}
        if len(words) < _LEAST_SHARED * len(mine):
            raise UsageError(
                f"only {len(words) / len(mine):.0%} of its words are words of the model that it should guess for",
                hint="draft with a smaller model of the same family, or with a student that edge distill made of it",
            )
        tokens = {word: id for id, word in words.items()}

        @functools.cache
        def spelled(word: int) -> tuple[int, ...]:
            return (tokens[word],) if word in tokens else tuple(own.encode(other.decode([word])))

        return cls(session, spelled, words)

    @property
    def behind(self) -> int:
        """Tokens that it has to read before it can guess."""
        return len(self._ids) - self._same

    def begin(self, words: Sequence[int]) -> None:
        """The conversation is another one, in words of the other model; what is none of them (a picture) is skipped."""
        self._ids, self._same = [], 0
        for word in words:
            self.add(word)

    def add(self, word: int) -> None:
        for id in self._spelled(word) if word >= 0 else ():
            self._same += self._same == len(self._ids) < len(self._held) and self._held[self._same] == id
            self._ids.append(id)

    def guess(self, n_tokens: int) -> list[int]:
        """What it would say next, up to a token that is no word of the other model; nothing where it has no room."""
        if not self._ids or len(self._ids) + n_tokens > self.session.context_length:
            return []
        said: list[int] = []
        logits = self._read(self._ids[self._keep() :])
        while (word := self._words.get(token := int(logits.argmax()))) is not None:
            said.append(word)
            if len(said) == n_tokens:
                break
            logits = self._read((token,))
        self._same = len(self._ids)
        return said

    def _keep(self) -> int:
        """Cut the cache down to what is the conversation's, short of its last token; how much that is."""
        keep = keep_first(self.session, min(self._same, len(self._ids) - 1))
        del self._held[keep:]
        return keep

    def _read(self, tokens: Sequence[int]) -> np.ndarray:
        logits = self.session.feed(tokens)
        self._held += tokens
        return logits


@dataclass(frozen=True)
class Tried:
    """What a trial of one model drafting for another found. Costs are in single tokens of the larger one."""

    chances: tuple[float, ...]  # that the first, the first two, ... tokens of a guess come true
    cost: float  # of a guessed token
    reading: float  # of a token of the conversation

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Tried | None:
        """What `told` told once; `None` where that is nothing."""
        try:
            return cls(tuple(map(float, told["chances"])), float(told["cost"]), float(told["reading"]))
        except (KeyError, TypeError, ValueError):
            return None

    def told(self) -> dict[str, Any]:
        return asdict(self)


def trial(
    session: Peeking, draft: Draft, prompts: Sequence[Sequence[int]], known: Known, stop_ids: Sequence[int] = ()
) -> Tried:
    """Have both continue `prompts` greedily: how often are guesses true, and what do they cost?

    Each way of the session to look ahead is tried on the same answers, which tells `known` what it costs and whether it
    gives what single tokens give. Both sessions are emptied. Takes as long as a hundred tokens
    and more, for each prompt.
    """
    rights: list[int] = []
    singles_s, guesses_s, reading_s = [], [], []
    for prompt in prompts:
        session.rewind(0)
        said, rows, took_s = _answer(session, prompt, stop_ids)
        if len(said) <= _LOOKED_AT:
            continue
        singles_s += took_s
        single_s = statistics.median(singles_s)
        session.rewind(len(prompt))
        for i, token in enumerate(said):
            for way in session.ways if i % (2 * _APART) == 0 else ():
                if way.size <= len(said) - i and not known.refused(way):
                    began = time.perf_counter()
                    peeked = session.peek(said[i : i + way.size])
                    known.took(way, (time.perf_counter() - began) / single_s)
                    for row, alone in zip(peeked, rows[i:], strict=False):
                        known.note(way, same=bool((row == alone).all()))
            session.feed((token,))
        draft.begin(prompt)
        began, n_read = time.perf_counter(), draft.behind
        draft.guess(1)
        reading_s.append((time.perf_counter() - began) / n_read)
        for i in range(len(said) - _LOOKED_AT):
            if i % _APART == 0:
                began = time.perf_counter()
                guess = draft.guess(_LOOKED_AT)
                guesses_s.append((time.perf_counter() - began) / _LOOKED_AT)
                rights.append(next((k for k, g in enumerate(guess) if g != said[i + k]), len(guess)))
            draft.add(said[i])
    session.rewind(0)
    if not rights:
        raise EdgeError("the answers of the larger model to the questions of the trial are too short to learn from")
    single_s = statistics.median(singles_s)
    return Tried(
        chances=tuple(sum(right > k for right in rights) / len(rights) for k in range(_LOOKED_AT)),
        cost=statistics.median(guesses_s) / single_s,
        reading=statistics.median(reading_s) / single_s,
    )


def _answer(
    session: Session, prompt: Sequence[int], stop_ids: Sequence[int]
) -> tuple[list[int], list[np.ndarray], list[float]]:
    """What it says greedily; the logits after each token, and how long that took."""
    said, rows, took_s = [int(session.feed(prompt).argmax())], list[Any](), list[float]()
    while said[-1] not in stop_ids and len(said) <= _TRIED_TOKENS and session.position < session.context_length:
        began = time.perf_counter()
        rows.append(session.feed(said[-1:]).copy())
        took_s.append(time.perf_counter() - began)
        said.append(int(rows[-1].argmax()))
    del said[len(rows) :]
    return said, rows, took_s
