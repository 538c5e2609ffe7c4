"""A text part of fewer layers put back where it was: the vision part, and all else, as they were.

What a picture becomes for the decoder has its width, and places of pictures are words of its vocabulary: those stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, UsageError
from edge.export import sharded
from edge.export.checkpoint import Checkpoint
from edge.export.distill.students.depth import PER_LAYER
from edge.export.vision.split import Split


def check(checkpoint: Checkpoint) -> None:
    """Raise `UsageError` for a checkpoint whose text part has no configuration of its own."""
    if not isinstance(checkpoint.config.get("text_config"), Mapping):
        raise UsageError(
            f"config.json of {checkpoint.name} has no text_config, so no other text part can be described in it"
        )


def rejoin(checkpoint: Checkpoint, split: Split, text: Checkpoint, folder: Path) -> None:
    """Write the checkpoint with `text` in the place of its text part into `folder`."""
    sharded.copy_side_files(checkpoint.folder, folder)
    config: dict[str, Any] = json.loads(json.dumps(dict(checkpoint.config)))
    inner = config["text_config"]
    inner |= {key: text.config[key] for key in ("num_hidden_layers", *PER_LAYER) if text.config.get(key) is not None}
    sharded.save(_tensors(checkpoint, split, text), config, folder)


def _tensors(checkpoint: Checkpoint, split: Split, text: Checkpoint) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for name, info in text.tensors.items():
        if name not in split.names:
            raise EdgeError(f"the new text part of {checkpoint.name} has a tensor {name!r}, which the old one has not")
        with safe_open(text.folder / info.file, framework="pt") as file:
            yield split.names[name], file.get_tensor(info.name)
    for name in split.vision:
        info = checkpoint.tensors[name]
        with safe_open(checkpoint.folder / info.file, framework="pt") as file:
            yield name, file.get_tensor(info.name)
