"""What a model wrote, made safe to print: it may say anything, and move nothing."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")
# Invisible characters that reorder what is around them; joiners and variation selectors stay, emoji need them.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


def printable(text: str) -> str:
    """`text` without control characters, escape sequences and marks that reorder a line.

    >>> printable("a\\x1b[2Jb\\u202ec\\n")
    'a[2Jbc\\n'
    """
    return "".join(c for c in text if c in _KEPT or (unicodedata.category(c) != "Cc" and c not in _REORDERING))
