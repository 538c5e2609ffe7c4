"""Words of tools and files, made fit to be seen: by a model, whose markers they cannot forge, and by a person.

What stands between a model's own markers steers it: a file that holds `<|im_end|>` would otherwise end the turn it is
quoted in. What stands between control characters steers a terminal, and can show a person another text than is there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable

SHOWN_CHARACTERS = 4000
# Markers of the chat templates in use, and of tool calls.
_MARKERS = re.compile(
    r"<(?=\|)|(?<=\|)>|<(?=/?(?:tool_call|tool_response|tool|tools|think|s|start_of_turn|end_of_turn|image|bos|eos)\b)"
    r"|\[(?=/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\])",
    re.IGNORECASE,
)
# Letters and marks by category, and nothing to the eye.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
_LOOKALIKE = {"<": "‹", ">": "›", "[": "⟦"}


def for_model(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """`text` without markers and control characters, and no longer than `most` characters."""
    shown = text if len(text) <= most else f"{text[:most]}\n… and {len(text) - most} characters more"
    return _MARKERS.sub(lambda found: _LOOKALIKE[found[0]], _plain(shown.replace("\r\n", "\n"), keep="\n\t"))


def for_person(text: str) -> str:
    """`text` in one line that shows everything that is in it, also what has no shape."""
    return _plain(text, keep="")


def for_json(text: str) -> str:
    """A JSON text that means the same, in which a person sees what has no shape."""
    return _plain(text, keep="\n", spelled=lambda c: json.dumps(c)[1:-1])


def cut(output: bytes, most: int) -> bytes:
    """The first `most` bytes of `output` at most, and no half of a character at their end."""
    end = most
    while most - 4 < end < len(output) and end > 0 and output[end] & 0xC0 == 0x80:
        end -= 1
    return output[:end]


def decoded(output: bytes) -> str | None:
    """`output` as text; None when it is none."""
    if b"\0" in output:
        return None
    try:
        return output.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _plain(text: str, keep: str, spelled: Callable[[str], str] = lambda c: f"\\u{ord(c):04x}") -> str:
    """What has no shape by its number; what turns the reading direction is among it."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        spelled(c) if c not in keep and _is_shapeless(c, before) else c
        for before, c in zip(f" {text}", text, strict=False)
    )


def _is_shapeless(c: str, before: str) -> bool:
    """Whether nobody sees `c`: control, format, private, surrogate and filling characters.

    A variation selector belongs to the emoji `before` it, and is hidden anywhere else.
    """
    if "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef":
        return unicodedata.category(before) != "So"
    return c in _FILLERS or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
