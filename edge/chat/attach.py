"""Pictures in what a person types: a path that was dragged into the terminal, or typed, attaches the file.

What is this? '/home/ada/My Pictures/cat.jpg'
What is this? /home/ada/My\\ Pictures/cat.jpg
file:///home/ada/cat.jpg
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

from edge.chat.screen import printable
from edge.runtimes.image import SUFFIXES
from edge.runtimes.model import Model

_WORD = re.compile(r"""'[^']*'|"[^"]*"|(?:\\.|[^\s'"])+""")


def find(line: str) -> tuple[str, list[Path]]:
    """The line without the picture files that it names, and those files; what is no file stays in the line.

    >>> find("What is in /no/such/cat.jpg?")
    ('What is in /no/such/cat.jpg?', [])
    """
    found: list[Path] = []

    def take(match: re.Match[str]) -> str:
        path = _path(match[0])
        if path is None:
            return match[0]
        found.append(path)
        return ""

    text = _WORD.sub(take, line)
    if not found:
        return line, []
    return re.sub(r"[ \t]{2,}", " ", text).strip(), found


def _path(word: str) -> Path | None:
    """The picture file that a word names, quoted, escaped or as a file: address."""
    if word[:1] in "'\"":
        word = word[1:-1]
    elif "\\" in word:
        word = re.sub(r"\\(.)", r"\1", word)
    try:
        if word.startswith("file://"):
            word = unquote(urlparse(word).path)
        if not word.lower().endswith(SUFFIXES):
            return None
        path = Path(os.path.expanduser(word))
        return path if path.is_file() else None
    except (OSError, ValueError):  # no address, or a name that no file can have
        return None


def describe(model: Model, path: Path) -> str:
    """What is said when a picture is attached. Raises as the model does for one that it cannot see."""
    seen = model.sight.look({"type": "image", "path": path})
    width, height = seen.size
    notes = "".join(f"; {note}" for note in seen.notes)
    return f"{printable(path.name)}, {width} x {height}{notes}"
