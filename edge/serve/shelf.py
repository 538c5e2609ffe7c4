"""Conversations that had to leave their seat: their caches wait in memory, so that they go on without being read again.

Two people who ask in turn share one seat. Without this, each question would have the other conversation forgotten,
and the own one read from its beginning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import EdgeError, InputError
from edge.runtimes.kept import WORTH, keep, restore
from edge.runtimes.model import Model
from edge.runtimes.sight import Prompt, in_common

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("edge.serve")


@dataclass(frozen=True)
class _Kept:
    """What a cache held (ids, and below 0 the rows of pictures), and the cache."""

    held: tuple[int, ...]
    arrays: tuple[np.ndarray, ...]

    @property
    def n_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


class Shelf:
    """Caches of one bundle, at most `most_bytes` of them; the one left the longest ago goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[_Kept] = []
        self._too_long: int | None = None  # tokens whose cache alone was larger than the shelf

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def n_bytes(self) -> int:
        return sum(kept.n_bytes for kept in self._kept)

    def exchange(self, model: Model, prompt: Prompt) -> None:
        """Before a model reads a prompt: put away what it would lose by that, and bring what it need not read again.

        Only where it saves reading `WORTH` tokens. Whatever fails, the prompt is read as if there were no shelf.
        """
        if not self._most_bytes or not hasattr(model.session, "keep"):
            return
        here = model.reusable(prompt)
        best = max(self._kept, key=lambda kept: in_common(kept.held, prompt), default=None)
        if len(model.held) - here >= WORTH:
            self._put(model)
        if best is None or in_common(best.held, prompt) - here < WORTH:
            return
        self._kept = [kept for kept in self._kept if kept is not best]
        try:
            model.session.restore(len(best.held), best.arrays)  # type: ignore[attr-defined]
            model.hold(best.held)
        except (EdgeError, ValueError) as err:
            log.warning("a conversation is read again: %s", err)
            model.session.rewind(0)
            model.hold(())

    def save(self, models: Sequence[Model], folder: Path) -> None:
        """Write what waits, and what the models hold, for `load`; in the place of what was written of this bundle.

        As much as the shelf has room for. What cannot be written is read again another time.
        """
        model = models[0]
        for seated in models:
            if len(seated.held) >= WORTH and hasattr(seated.session, "keep"):
                self._put(seated)
        unused = set(_files(model, folder))
        for i, kept in enumerate(self._kept):
            path = folder / f"{model.bundle.id}-{i}.cache"
            try:
                model.session.restore(len(kept.held), kept.arrays)  # type: ignore[attr-defined]
                model.hold(kept.held)
                keep(model, path)
            except (EdgeError, OSError) as err:
                log.warning("a conversation is not kept: %s", err)
                break
            unused.discard(path)
        for path in unused:
            path.unlink(missing_ok=True)

    def load(self, model: Model, folder: Path) -> None:
        """Take back what was saved of this model's bundle; what is damaged or of another runtime is removed."""
        for path in _files(model, folder):
            try:
                if restore(model, path):
                    self._put(model)
            except (InputError, OSError) as err:
                log.warning("a conversation is read again: %s", err)
                path.unlink(missing_ok=True)
        if model.session.position:
            model.session.rewind(0)
        model.hold(())

    def _put(self, model: Model) -> None:
        held = tuple(model.held)
        if len(held) != model.session.position or (self._too_long is not None and len(held) >= self._too_long):
            return
        # A whole that begins with another holds all of it.
        others = [kept for kept in self._kept if kept.held != held[: len(kept.held)]]
        try:
            arrays = tuple(model.session.keep())  # type: ignore[attr-defined]
        except EdgeError:  # a picture that is placed in rows and columns
            return
        kept = _Kept(held, arrays)
        if kept.n_bytes > self._most_bytes:
            self._too_long = len(held)
            return
        self._kept = [*others, kept]
        while self.n_bytes > self._most_bytes:
            del self._kept[0]


def _files(model: Model, folder: Path) -> list[Path]:
    """What was written of this model's bundle, the one left the longest ago first."""
    name = re.compile(re.escape(model.bundle.id) + r"-(\d{1,6})\.cache")
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found)]
