"""Ask the teacher about every token of a text, a few texts at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.export import streamed
from edge.export.checkpoint import Checkpoint
from edge.export.distill import store
from edge.export.distill.precision import computing
from edge.export.reference import load_model
from edge.progress import Progress

if TYPE_CHECKING:
    import torch

_LOGIT_BYTES = 192 << 20  # of one pass, in float32


def ask(teacher: Checkpoint, texts: Sequence[Sequence[int]], folder: Path, k: int, progress: Progress) -> store.Store:
    """The store of the teacher's answers below `folder`, made where it is not whole."""
    import torch

    vocab_size = int(teacher.text_config["vocab_size"])
    loaded: list[Any] = []

    def answers(asked: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        if not loaded:  # a store that is whole needs no teacher
            loaded.append(load_model(teacher))
        at_once = max(1, _LOGIT_BYTES // (4 * max(map(len, asked)) * vocab_size))
        for at in range(0, len(asked), at_once):
            part = asked[at : at + at_once]
            ids, mask = streamed.padded(part)
            with torch.inference_mode(), computing():
                logits = loaded[0](ids, attention_mask=mask, use_cache=False).logits
            for row, text in zip(logits, part, strict=True):
                yield row[: len(text)]

    return store.build(folder, texts, answers, k=k, vocab_size=vocab_size, progress=progress)
