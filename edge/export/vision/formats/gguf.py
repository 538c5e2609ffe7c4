"""GGUF: text model and `mmproj.gguf`, the two files that llama.cpp's multimodal programs take.

LLaVA's is written here; for other types llama.cpp's own converter makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.export.artifact import Artifact, Entry, Need
from edge.export.checkpoint import Checkpoint
from edge.export.vision import mmproj
from edge.export.vision.join import bring, joined
from edge.export.vision.split import Split
from edge.progress import Progress

FILE = "mmproj.gguf"
_COMPUTED_BITS = 16  # llama.cpp looks GELU up in a table of 16 bits, whatever the file holds
_WINDOW = 112  # pixels; llama.cpp does not read another from the file
_CLASS_TOKEN = (
    "llama.cpp's own CLIP encoder puts the class token in the wrong place (llama.cpp issue 25814): edge encodes "
    "pictures itself; other programs that read mmproj.gguf will see them distorted until that is mended"
)


def estimate(n_text: int, n_vision: int) -> Need:
    """Memory, disk and time of `convert` for so many parameters: tensors go one by one, without torch's model."""
    return Need(ram_bytes=(600 << 20) + 8 * n_vision, disk_bytes=6 * n_vision, time_s=5 + n_vision / 2e7)


def check(checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any]) -> None:
    """Raise `UsageError` for pictures that this format cannot take, before anything is made."""
    window = int(checkpoint.config["vision_config"].get("window_size", _WINDOW))
    if rule["kind"] == "patches" and window != _WINDOW:
        raise UsageError(
            f"the vision part of {checkpoint.name} sees windows of {window} pixels, llama.cpp's has {_WINDOW}",
            hint="no format takes it",
        )
    if checkpoint.model_type != "llava" or any(name.endswith("class_embedding") for name in split.vision):
        return
    if rule["n_tokens"] != (rule["height"] // rule["patch"]) ** 2:
        raise UsageError(
            f"{checkpoint.name} leaves out the first patch of SigLIP, which llama.cpp cannot do",
            hint="choose another format",
        )


def convert(
    checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path, *, half: bool, progress: Progress
) -> Artifact:
    """Write `mmproj.gguf` into `folder`, its matrices in float16 if `half`.

    Raises `EdgeError` when a tensor was lost on the way, `UsageError` for what llama.cpp cannot compute.
    """
    progress.start("writing mmproj.gguf")
    path = folder / FILE
    warnings: tuple[str, ...] = ()
    if checkpoint.model_type == "llava":
        entries = mmproj.write(checkpoint, split.vision, rule, path, half=half)
        warnings = (_CLASS_TOKEN,) if any(e.target == ("v.class_embd",) for e in entries) else ()
    else:
        entries = _stock(checkpoint, split, path, half=half, progress=progress)
    return Artifact(
        format="gguf",
        quantization="f16" if half else "f32",
        folder=folder,
        model_file=FILE,
        files=(FILE,),
        ledger=entries,
        context_length=1,
        plan={"type": "f16" if half else "f32", "computed_bits": _COMPUTED_BITS},
        warnings=warnings,
    )


def join(
    text: Artifact, vision: Artifact, checkpoint: Checkpoint, split: Split, rule: Mapping[str, Any], folder: Path
) -> Artifact:
    """Both files side by side."""
    bring(text, text.files, folder)
    bring(vision, vision.files, folder)
    return joined(text, vision, split, folder, parts={"vision": FILE}, files=[*text.files, *vision.files], rule=rule)


def _stock(checkpoint: Checkpoint, split: Split, path: Path, *, half: bool, progress: Progress) -> tuple[Entry, ...]:
    """By llama.cpp's converter, every value found again."""
    import numpy as np

    from edge.export import llama_cpp_source
    from edge.export.llama_cpp_run import run_converter
    from edge.export.vision.account import account
    from edge.readers.gguf import read_header

    sources = llama_cpp_source.folder()
    full = path if not half else path.with_name("full.gguf")
    run_converter(sources, checkpoint, full, progress, mmproj="f32")
    tensors = read_header(full).tensors
    dtypes = {"F32": np.float32, "F16": np.float16}
    arrays = (
        (t.name, np.memmap(full, dtypes[t.type], "r", t.offset, tuple(reversed(t.shape)))) for t in tensors.values()
    )
    entries = account(checkpoint, split.vision, arrays, where="GGUF")
    if half:
        from edge.export.llama_cpp_ledger import with_types

        run_converter(sources, checkpoint, path, progress, mmproj="f16")
        full.unlink()
        entries = with_types(entries, read_header(path).tensors)
    return entries
