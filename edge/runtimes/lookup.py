"""Prompt lookup: what followed the last words earlier in a conversation may follow them again."""

from __future__ import annotations

from collections.abc import Sequence

_SHORTEST = (2, 1)  # words that have to be found again; one where there are no two
LONGEST = 8  # more words found again say no more about what follows
_PLACES = 24  # of those where the last words stood, how many are compared; the latest first


class Lookup:
    """The words of a conversation, and where each pair of them stands."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._place = 0

    def begin(self, words: Sequence[int]) -> None:
        """Forget the last conversation; this one begins with `words`."""
        self._words, self._places = [], {}
        for word in words:
            self.add(word)

    def add(self, word: int) -> None:
        self._words.append(word)
        for n in _SHORTEST:
            if len(self._words) >= n:
                self._places.setdefault(tuple(self._words[-n:]), []).append(len(self._words))

    def find(self) -> int:
        """Look for the latest place where most of the last words stood before; how many, at most `LONGEST`."""
        words, n, found = self._words, len(self._words), 0
        known = (self._places.get(tuple(words[-shortest:]), [])[-_PLACES - 1 : -1] for shortest in _SHORTEST)
        for at in reversed(next(filter(None, known), [])):
            same = 1
            while same < min(LONGEST, at) and words[at - 1 - same] == words[n - 1 - same]:
                same += 1
            if same > found:
                found, self._place = same, at
        return found

    def guess(self, n_tokens: int) -> list[int]:
        """What followed at the place that was found last."""
        words, n, left = self._words, len(self._words), list[int]()
        # What repeats itself is guessed to go on: behind the last word stands the guess.
        for i in range(self._place, self._place + n_tokens):
            left.append(words[i] if i < n else left[i - n])
        return left
