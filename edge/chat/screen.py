"""What a model wrote, made safe to print: it may say anything, and move nothing."""

from __future__ import annotations

# Escape sequences need ESC or a C1 control, and a line is overwritten with CR or BS. They are
# shown by their picture, since an answer that holds them is worth knowing about. Line ends of
# other systems lose their CR. What turns the direction of the text around it goes the same way
# as C1: it could show a command in another order than it has. Joiners, variation selectors and
# the plain direction marks stay: emoji and right-to-left scripts need them.
_REORDERING = (0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069)
_SAFE: dict[int, int | None] = {
    **{c: 0x2400 + c for c in range(0x20)},
    0x7F: 0x2421,
    **{c: 0xFFFD for c in (*range(0x80, 0xA0), 0x2028, 0x2029, *_REORDERING, *range(0xD800, 0xE000))},
    0x0D: None,
}
del _SAFE[0x0A], _SAFE[0x09]


def printable(text: str) -> str:
    """`text` with every control character made visible; newlines and tabs stay.

    >>> printable("a\\x1b[2Jb\\u202ec\\n")
    'a␛[2Jb\\ufffdc\\n'
    """
    return text.translate(_SAFE)
