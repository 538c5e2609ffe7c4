"""Vectors of texts: computed in turns with answers, and told as OpenAI's clients read them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from edge.runtimes.embedders import steps, unit
from edge.runtimes.model import Model, Stats
from edge.runtimes.sight import Prompt
from edge.serve.asking import WantedVectors
from edge.serve.refusal import Refusal
from edge.serve.turns import CHUNK, Place, Seats, Work

if TYPE_CHECKING:
    import numpy as np


class Embedding(Work):
    """The vectors of some texts, a piece of a text at a step; told as one list when all are there."""

    def __init__(self, seats: Seats, texts: Sequence[Sequence[int]], place: Place) -> None:
        super().__init__(seats, Prompt(texts[0]), place)
        self.n_tokens = sum(map(len, texts))
        self._texts = texts
        self._vectors: list[np.ndarray] = []
        self._steps: Generator[int, None, np.ndarray] | None = None
        self._stats: Stats | None = None
        self._began_s = 0.0

    @property
    def stats(self) -> Stats | None:
        return self._stats

    def advance(self, model: Model) -> bool:
        """Read a piece of a text."""
        if self._steps is None:
            if not self._vectors:
                self._began_s = time.monotonic()
                self.seats.shelf.exchange(model, self.prompt)  # a conversation may lose its seat to this
            self._steps = steps(model, self._texts[len(self._vectors)], chunk=CHUNK)
        try:
            next(self._steps)
        except StopIteration as end:
            self._vectors.append(end.value)
            self._steps = None
        if len(self._vectors) < len(self._texts):
            return True
        self._leave(model)
        took_ms = (time.monotonic() - self._began_s) * 1000
        self._stats = Stats(self.n_tokens, 0, 0, None, None, took_ms, "end")
        self.ended = "stop"
        self.tell(self._vectors)
        return False

    def abandon(self) -> None:
        if self._steps is not None:
            self._steps.close()
        if self._model is not None and self._began_s:
            self._leave(self._model)

    def _leave(self, model: Model) -> None:
        """Nothing is left in the cache: these texts are no conversation, and need no place on the shelf."""
        model.session.rewind(0)
        model.hold(())


async def whole(work: Embedding, wanted: WantedVectors, model: str) -> bytes:
    """The response's JSON, when all vectors are there. Raises the `Refusal` that came instead."""
    vectors = await work.events.get()
    if isinstance(vectors, Refusal):
        raise vectors
    rows = []
    for i, vector in enumerate(vectors):
        rows.append(json.dumps({"object": "embedding", "index": i, "embedding": _written(vector, wanted)}))
        await asyncio.sleep(0)  # thousands of vectors take seconds to write, and others want to be heard
    usage = {"prompt_tokens": work.n_tokens, "total_tokens": work.n_tokens}
    around = json.dumps({"object": "list", "model": model, "usage": usage})
    return f'{around[:-1]}, "data": [{", ".join(rows)}]}}'.encode()


def _written(vector: np.ndarray, wanted: WantedVectors) -> list[float] | str:
    """A vector of as many numbers as were asked for, of length 1 again; in base64 its float32, the least byte first."""
    if wanted.dimensions is not None and wanted.dimensions < len(vector):
        vector = unit(vector[: wanted.dimensions])
    if wanted.base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    found: list[float] = vector.tolist()
    return found
