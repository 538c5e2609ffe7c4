"""Words of tools and files, made fit to be seen: by a model, whose markers they cannot forge, and by a person.

What stands between a model's own markers steers it: a file that holds `<|im_end|>` would otherwise end the turn it is
quoted in. What stands between control characters steers a terminal, and can show a person another text than is there.
"""

from __future__ import annotations

import re
import unicodedata

SHOWN_CHARACTERS = 4000
# Markers of the chat templates in use, and of tool calls.
_MARKERS = re.compile(
    r"<(?=\|)|(?<=\|)>|<(?=/?(?:tool_call|tool_response|tool|tools|think|s|start_of_turn|end_of_turn|image|bos|eos)\b)"
    r"|\[(?=/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\])",
    re.IGNORECASE,
)
_LOOKALIKE = {"<": "‹", ">": "›", "[": "⟦"}


def for_model(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """`text` without markers and control characters, and no longer than `most` characters."""
    shown = text if len(text) <= most else f"{text[:most]}\n… and {len(text) - most} characters more"
    return _MARKERS.sub(lambda found: _LOOKALIKE[found[0]], _plain(shown, keep="\n\t"))


def for_person(text: str) -> str:
    """`text` in one line that shows everything that is in it, also what has no shape."""
    return _plain(text, keep="")


def decoded(output: bytes) -> str | None:
    """`output` as text; None when it is none."""
    if b"\0" in output:
        return None
    try:
        return output.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _plain(text: str, keep: str) -> str:
    """Control, format and surrogate characters by number; those that turn the reading direction are among them."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else f"\\u{ord(c):04x}"
        for c in text.replace("\r\n", "\n")
    )
