"""A tokenizer that refuses a text which cannot fit before it is made into tokens whole.

A token takes some hundred bytes of memory while it is made: a request of 32 MiB would take gigabytes, on a device that
has fewer, to be told that it is too long.
"""

from __future__ import annotations

from edge.runtimes.session import ContextFull
from edge.runtimes.tokenizer import Tokenizer

_LONG = 8  # characters for each token that fits: what people write is shorter, and is not counted first
_LONGEST = 256  # characters of a token, more than any vocabulary has
_PIECE = 1 << 14  # characters that are counted at once
_SEAM = 16  # tokens that a text may have fewer than its pieces, for each cut


class Fitting(Tokenizer):
    """As `Tokenizer`; `encode` raises `ContextFull` for a text of more than `most` tokens, if it is set."""

    most = 0

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        if self.most and len(text) > _LONG * self.most:
            self._count(text, parse_special)
        return super().encode(text, add_special=add_special, parse_special=parse_special)

    def _count(self, text: str, parse_special: bool) -> None:
        if len(text) > _LONGEST * self.most:
            raise ContextFull(0, len(text) // _LONGEST, self.most)
        n = 0
        for at in range(0, len(text), _PIECE):
            n += max(0, len(super().encode(text[at : at + _PIECE], parse_special=parse_special)) - _SEAM)
            if n > self.most:
                raise ContextFull(0, n, self.most)
