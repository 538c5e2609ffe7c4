"""A student of the user's own: any smaller checkpoint with the same tokenizer.

[student.checkpoint]
source = "./my-small-model"     # below the recipe's folder, or a hub id, a GGUF file, a built-in name
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export import sharded
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.export.source import open_source
from edge.progress import Progress

LEARNS = True


@dataclass(frozen=True)
class Options:
    """`source` is what `edge export` would take."""

    source: str


def source(options: Options, folder: Path, progress: Progress | None = None) -> Checkpoint:
    """The student as it is, which is looked for below the recipe's folder first."""
    below = folder / options.source
    return open_source(below if below.exists() else options.source, progress=progress)


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Copy the student. Raises `UsageError` when its tokenizer is another, or it is not smaller."""
    student = source(options, given.folder, progress)
    mine, theirs = (_words(c) for c in (student, checkpoint))
    if mine != theirs:
        raise UsageError(
            f"the tokenizers of {student.name} and {checkpoint.name} differ: "
            f"{len(mine.items() ^ theirs.items()):,} tokens are in one alone or have another id",
            hint="a student reads what its teacher reads: take one of the same family",
        )
    if student.text_config.get("vocab_size") != checkpoint.text_config.get("vocab_size"):
        raise UsageError(
            f"{student.name} has {student.text_config.get('vocab_size')} rows of logits and {checkpoint.name} "
            f"{checkpoint.text_config.get('vocab_size')}",
            hint="pad the student's embedding to the size of its teacher's",
        )
    if student.n_parameters >= checkpoint.n_parameters:
        raise UsageError(
            f"{student.name} has {student.n_parameters:,} parameters and its teacher {checkpoint.n_parameters:,}",
            hint="a student is smaller than its teacher",
        )
    sharded.copy_side_files(student.folder, folder)
    sharded.save(_tensors(student), student.config, folder)
    return {"source": student.name, "identity": dict(student.identity), "licence": student.licence}


def _words(checkpoint: Checkpoint) -> dict[str, int]:
    data = json.loads((checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8"))
    return {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data.get("added_tokens") or ()}}


def _tensors(student: Checkpoint) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for name, info in student.tensors.items():
        with safe_open(student.folder / info.file, framework="pt") as file:
            yield name, file.get_tensor(name)
