"""What comes with a request beside its words: files and pictures, each with where it comes from.

Their words can fill an argument of a plan, and are shown in an answer. They are never read as a wish.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import InputError, UsageError
from edge.runtimes.act import words
from edge.runtimes.model import Model
from edge.runtimes.session import Sampling

_LIMIT_BYTES = 1 << 20
_LOOKING = "Describe this picture in one sentence. If there is text in it, say what it says."


@dataclass(frozen=True)
class Given:
    """Words that came with a request: of which `kind` (file, picture), its name, and whose they are."""

    kind: str
    name: str
    text: str
    origin: str = "file"


def of_file(path: Path) -> Given:
    """The words of a text file. Raises `UsageError` when there is none, `InputError` when it is no text or too long."""
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, more than can be taken in", hint="give a part of it")
    text = words.decoded(path.read_bytes())
    if text is None:
        raise InputError(f"{path} is no text", hint="a picture goes with --image")
    return Given("file", path.name, words.for_model(text.strip("\n")))


def of_picture(path: Path, model: Model) -> Given:
    """What the model sees in a picture, in its words. Raises `UsageError` when the model does not see."""
    if not model.bundle.image:
        raise UsageError(
            f"{model.bundle.name} does not see pictures",
            hint="let one that does look at it, such as the export of smollm2-vision: --seen-by BUNDLE",
        )
    content = [{"type": "image", "path": os.path.abspath(os.path.expanduser(path))}, {"type": "text", "text": _LOOKING}]
    said = "".join(p.text for p in model.generate([{"role": "user", "content": content}], Sampling(max_tokens=96)))
    return Given("picture", path.name, words.for_model(said.strip()))


def together(given: Sequence[Given]) -> str:
    """All that was given, as one text."""
    return "\n\n".join(one.text for one in given)
