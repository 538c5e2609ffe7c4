"""The nearest end of an answer under a grammar: tokens after which it may end, from wherever it is.

Nearly the nearest. All ways are too many to be tried; what is forced, what closes, and the longest piece of what else
may come lead to an end soon. A way that is known is used again, so that most tokens cost one question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError

if TYPE_CHECKING:
    import numpy as np


class Pieces:
    """What the tokens of a vocabulary spell, as far as it matters for closing what is open."""

    def __init__(self, inner: Any) -> None:
        """`inner` is an `llguidance.LLTokenizer`."""
        import numpy as np

        texts = [inner.decode_bytes([i]) for i in range(inner.vocab_size)]
        self.worth = np.array([_worth(text) for text in texts], np.int32)
        first = {text: i for i, text in reversed(list(enumerate(texts)))}
        self.quote, self.letter = first.get(b'"'), first.get(b"x")
        self.brackets = [first[text] for text in (b"}", b"]") if text in first]


class Ends:
    """Finds ends for one tokenizer; `stop_id` is a token that ends an answer."""

    def __init__(self, inner: Any, stop_id: int) -> None:
        self._inner = inner
        self._stop_id = stop_id
        self._pieces: Pieces | None = None

    def after(self, matcher: Any, token: int, most: int, known: Sequence[int] | None) -> list[int] | None:
        """A way of at most `most` tokens from behind `token` to where the answer may end; `None` if none is found.

        `known` is one from before it. What does not close what the token opened is looked for anew.
        """
        if known and known[0] == token:
            return list(known[1:]) if len(known) <= most + 1 else None
        if known is not None:
            joined = self._joined(matcher, [token], known)
            if joined is not None:
                return joined if len(joined) <= most else None
        ahead = matcher.deep_copy()
        ahead.consume_token(token)
        return self.nearest(ahead, most, known)

    def nearest(self, matcher: Any, most: int, known: Sequence[int] | None = None) -> list[int] | None:
        """A way of at most `most` tokens; none at all where the answer may end now."""
        ahead = matcher.deep_copy()
        way: list[int] = []
        while len(way) <= most:
            if ahead.is_accepting():
                return way
            if way and known and (joined := self._joined(ahead, [], known)) is not None:
                return [*way, *joined] if len(way) + len(joined) <= most else None
            step = self._step(ahead)
            ahead.consume_tokens(step)
            way += step
        return None

    def _joined(self, matcher: Any, first: list[int], known: Sequence[int]) -> list[int] | None:
        """The end of the known way that leads to an end from here, behind the tokens of `first`."""
        for i in range(len(known) + 1):
            way = [*first, *known[i:], self._stop_id]
            if matcher.validate_tokens(way) == len(way):
                return list(known[i:])
        return None

    def _step(self, matcher: Any) -> list[int]:
        """Tokens that lead towards the end, one at least. They may come."""
        import numpy as np

        forced = matcher.compute_ff_bytes()
        if forced:
            tokens: list[int] = self._inner.tokenize_bytes(forced)
            if (good := matcher.validate_tokens(tokens)) > 0:
                return tokens[:good]
        self._pieces = self._pieces or Pieces(self._inner)
        closing = self._closing(matcher, self._pieces)
        if closing is None:
            worth = self._pieces.worth
            closing = int(np.where(allowed(matcher, len(worth)), worth, -1).argmax())
        return [closing]

    @staticmethod
    def _closing(matcher: Any, pieces: Pieces) -> int | None:
        """A mark that closes something here; `None` where none may come or would be a letter of a text only."""

        def may(*tokens: int | None) -> bool:
            return None not in tokens and matcher.validate_tokens(list(tokens)) == len(tokens)

        quoted = may(pieces.quote)
        for bracket in pieces.brackets:
            # Within a text it closes nothing: a text can end right behind it, or go on.
            if may(bracket) and not (quoted and may(bracket, pieces.quote)):
                return None if may(pieces.letter) and not quoted else bracket
        return pieces.quote if quoted else None


def _worth(text: bytes) -> int:
    """How far a token leads: the longest is nearest to the end of a word, what it opens is to be closed again.

    Blanks lead nowhere.
    """
    if not text.strip():
        return 0
    opened = text.count(b"{") + text.count(b"[") - text.count(b"}") - text.count(b"]")
    return max(1, 1 + len(text) - 4 * max(0, opened))


def allowed(matcher: Any, vocab_size: int) -> np.ndarray:
    """Which tokens may come next, bool `(vocab,)`. Raises `EdgeError` when the grammar is too complex to tell."""
    import numpy as np

    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    found = np.unpackbits(bits, bitorder="little", count=vocab_size).view(bool)
    if matcher.is_error() or not found.any():
        raise EdgeError(
            f"the grammar of this answer is too complex: {reason(matcher.get_error())}",
            hint="ask for a simpler schema, or for fewer tools",
        )
    return found


def reason(text: str) -> str:
    """The part of an error of llguidance that a person can use."""
    lines = [line.strip() for line in re.split(r"\n|<state>", text or "unknown") if line.strip()]
    return lines[0] if lines else "unknown"
