"""Whatever people have becomes a Checkpoint: a folder, a hub id, a GGUF file, a name in the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import InputError, UsageError, require
from edge.export.checkpoint import Checkpoint
from edge.find import load, names
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

_FLOATS = {"F64", "F32", "F16", "BF16"}
_INTEGERS = {"I64", "I32", "I16", "I8", "U8", "BOOL"}


def open_source(source: str | Path, *, progress: Progress | None = None) -> Checkpoint:
    """The checkpoint behind `source`; what had to be made from it lies in the cache.

    A path is taken first, then a name of the zoo, then a hub id `organisation/name`.
    Raises `UsageError` when it is none of these, `InputError` when its files are damaged.

    >>> open_source("no-such-model")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    edge.errors.UsageError: 'no-such-model' is no folder, no GGUF file and no built-in model
      built in: ...; a hub id looks like HuggingFaceTB/SmolLM2-135M-Instruct
    """
    progress = progress or Silent()
    text = str(source)
    path = Path(source).expanduser()
    if path.is_dir():
        from edge.export.sources import folder

        return folder.open_folder(path)
    if path.is_file():
        from edge.export.sources import gguf_file

        if path.suffix.lower() != ".gguf":
            raise UsageError(
                f"{path} is a single file, but no GGUF file",
                hint="give the folder that holds config.json and *.safetensors",
            )
        return gguf_file.open_gguf(path, progress=progress)
    if text in names("edge.export.zoo"):
        return load("edge.export.zoo", text).open_zoo(progress=progress)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from edge.export.sources import hub

        return hub.open_hub(text, progress=progress)
    built_in = ", ".join(names("edge.export.zoo"))
    raise UsageError(
        f"{text!r} is no folder, no GGUF file and no built-in model",
        hint=f"built in: {built_in}; a hub id looks like HuggingFaceTB/SmolLM2-135M-Instruct",
    )


def read_tensor(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """One tensor: floats as float32, integers as they are; only its own bytes are read."""
    require("safetensors", extra="export", purpose="reading a checkpoint")
    import torch
    from safetensors import safe_open

    info = checkpoint.tensors[name]
    if info.dtype not in _FLOATS | _INTEGERS:
        raise InputError(
            f"tensor {name!r} is stored as {info.dtype}, which this edge does not read",
            hint="save the checkpoint as bfloat16, float16 or float32",
        )
    with safe_open(checkpoint.folder / info.file, framework="pt") as file:
        tensor = file.get_tensor(name)
    return tensor.to(torch.float32).numpy() if info.dtype in _FLOATS else tensor.numpy()
