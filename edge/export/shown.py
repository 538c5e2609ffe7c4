"""Pictures that a model which sees is calibrated with: those that ship, or those that a user's conversations name."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, InputError, UsageError
from edge.export import cache
from edge.export.corpus import picture_questions
from edge.export.corpus.pictures import draw
from edge.runtimes.act import beneath
from edge.runtimes.image import MAX_FILE_BYTES, open_image
from edge.runtimes.sight import image_parts, source_of

if TYPE_CHECKING:
    import numpy as np

    from edge.export.vision.conversation import Conversation, Eyes

MOST, FEWEST = 48, 8  # pictures that ship
FILES_BYTES = 256 << 20  # of all pictures that a user's conversations name: they stay in memory
_NAMES = ("path", "data", "image", "url", "image_url")
_SIDE = 16  # of the thumbnails that pictures are compared by
_SAME = 5  # of 255, in the mean: 2.1 at most when a picture was scaled or saved again; others are 10.9 apart, or more


def default(eyes: Eyes, n_tokens: int) -> tuple[Conversation, ...]:
    """Conversations about drawn pictures: about `n_tokens`, so that text and pictures weigh alike.

    Where a picture takes many tokens, at least `FEWEST` are shown.
    """
    out: list[Conversation] = []
    for scene, asked in picture_questions.calibration(MOST):
        if len(out) >= FEWEST and sum(map(len, out)) >= n_tokens:
            break
        file = io.BytesIO()
        draw(scene).save(file, "PNG")
        parts: list[Mapping[str, Any]] = [{"type": "image"}]
        messages = []
        for question in asked:
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": question.text}]})
            said = [{"type": "text", "text": question.answers[0]}]
            messages.append({"role": "assistant", "content": said})
            parts = []
        out.append(eyes.take(messages, [file.getvalue()], "a conversation that ships"))
    return tuple(out)


class Named:
    """The pictures that conversations in one file name: they lie beside it, or below."""

    def __init__(self, folder: Path, eyes: Eyes | None) -> None:
        self._folder, self._eyes, self._n_bytes = folder, eyes, 0

    def conversation(self, line: str, where: str) -> Conversation | None:
        """That of a line of JSON which shows pictures; nothing for any other line.

        Raises `UsageError` without eyes to see them, or for a picture that is not there, or elsewhere, and `InputError`
        for one that cannot be read.
        """
        messages, parts = _shown(line)
        if not parts:
            return None
        if self._eyes is None:
            raise UsageError(
                f"{where} shows a picture, and text alone is read here",
                hint="models that see are calibrated with pictures, nothing else is: leave such lines out",
            )
        return self._eyes.take(messages, [self._file(part, where) for part in parts], where)

    def _file(self, part: Mapping[str, Any], where: str) -> bytes:
        name = "a picture"
        try:
            source = str(source_of(part))  # JSON has no bytes
            name = name if source.startswith("data:") else source
            data = self._read(source)
            self._n_bytes += len(data)
            if self._n_bytes > FILES_BYTES:
                raise UsageError(
                    f"its pictures take more than {FILES_BYTES >> 20} MiB with this one",
                    hint="a few dozen conversations with pictures are plenty: name fewer, or make them smaller",
                )
            open_image(data)
        except EdgeError as err:
            kind = InputError if isinstance(err, InputError) else UsageError
            hint = err.hint or "give each picture as a path from the file's own folder, or leave the line out"
            raise kind(f"{where}: {name}: {err.message}", hint=hint) from None
        return data

    def _read(self, source: str) -> bytes:
        if source.startswith("data:"):
            file = io.BytesIO()
            from PIL import Image

            Image.fromarray(open_image(source).rgb).save(file, "PNG")
            return file.getvalue()
        try:
            with os.fdopen(beneath.opened(self._folder, source, os.O_RDONLY), "rb") as opened:
                return opened.read(MAX_FILE_BYTES + 1)
        except OSError as err:
            raise UsageError((err.strerror or "it cannot be read").lower()) from err


def _shown(line: str | bytes) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The messages of a line of JSON and their pictures; whoever reads its text says what is wrong with a line.

    Pictures may be named in the messages' parts, or, in order, in a list `images` beside the messages.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return [], []
    messages = row.get("messages") if isinstance(row, dict) else None
    if not (isinstance(messages, list) and all(isinstance(m, dict) for m in messages)):
        return [], []
    beside = iter(row["images"] if isinstance(row.get("images"), list) else ())
    parts = image_parts(messages)
    return messages, [part if any(part.get(k) for k in _NAMES) else {"image": next(beside, None)} for part in parts]


def hash_of(path: Path) -> str:
    """What a user's conversations are known by: their file, and each picture that they name, where it is there."""
    found = [cache.hash_of(path)]
    lines = path.read_bytes().splitlines() if path.suffix == ".jsonl" else []
    for line in lines:
        for part in _shown(line)[1]:
            with contextlib.suppress(EdgeError, OSError, ValueError):  # the export says what is wrong with it
                file = path.parent / str(source_of(part))
                found += [cache.hash_of(file)] if file.is_file() else []
    return cache.key(files=found) if len(found) > 1 else found[0]


def check_apart(shown: Iterable[Conversation], source: str) -> None:
    """Raise `UsageError` when one of the pictures is one that the gate asks about, be it scaled or saved again."""
    import numpy as np

    judged = [_thumbnail(np.asarray(draw(scene))) for scene, _ in picture_questions.held_out()]
    for conversation in shown:
        for data in conversation.pictures:
            small = _thumbnail(open_image(data).rgb)
            if any(np.abs(small - other).mean() < _SAME for other in judged):
                raise UsageError(
                    f"{source} shows a picture that is judged by, so it cannot be calibrated with",
                    hint="leave the pictures of edge's own held-out set out",
                )


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    import numpy as np
    from PIL import Image

    small = Image.fromarray(rgb).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small).astype(np.float32)
