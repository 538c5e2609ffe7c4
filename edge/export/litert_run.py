"""litert-torch and the LiteRT quantizer, each in a process of its own: memory is given back, output stays inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.export import litert_worker, preflight
from edge.export.checkpoint import Checkpoint

_TIMEOUT_S = 6 * 3600


def convert(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    graphs: Mapping[int, Sequence[int]],
    ahead: int | None = None,
    embedder: bool = False,
) -> str:
    """Write `folder/model.tflite` in float32; litert-torch's version.

    `graphs` has, for each window on the cache, the sizes of its prefills; the largest window is the cache.
    `ahead` is how many tokens one more graph for each window takes, which gives logits after each of them.

    With `embedder`, the token embedding is in `folder/embedder.tflite`, and the model takes embeddings.
    Raises `EdgeError` with the last line of what the converter said when it fails.
    """
    words = (json.dumps(graphs), json.dumps(ahead), "embedder" if embedder else "whole")
    said = _worker("convert", checkpoint.folder, folder, *words)
    wanted = ["model.tflite", *(["embedder.tflite"] if embedder else [])]
    if said is not None or not all((folder / name).is_file() for name in wanted):
        preflight.refuse_full_disk(folder)
        raise EdgeError(
            f"litert-torch cannot convert {checkpoint.name} ({checkpoint.model_type}): {said or 'it wrote no file'}",
            hint="free memory if it is that; or choose another format",
        )
    return metadata.version("litert-torch")


def vision(checkpoint: Checkpoint, target: Path, side: int) -> str:
    """Write the vision part, for pictures of `side` x `side`, in float32; litert-torch's version."""
    said = _worker("vision", checkpoint.folder, target, side)
    if said is not None or not target.is_file():
        raise EdgeError(
            f"litert-torch cannot convert the vision part of {checkpoint.name}: {said or 'it wrote no file'}",
            hint="free memory or disk space if it is that; or choose another format",
        )
    return metadata.version("litert-torch")


def quantize(source: Path, target: Path, recipe: list[dict[str, Any]], *, near: bool = True) -> str:
    """Write `target` as an ai-edge-quantizer recipe says; the quantizer's version.

    Without `near`, the signatures that see only the first rows of the cache are left out.
    """
    written = target.with_suffix(".recipe.json")
    written.write_text(json.dumps(recipe))
    said = _worker("quantize", source, target, written, "near" if near else "whole")
    written.unlink()
    target.with_suffix(".whole").unlink(missing_ok=True)
    if said is not None or not target.is_file():
        preflight.refuse_full_disk(target.parent)
        raise EdgeError(f"ai-edge-quantizer cannot quantize {source.name}: {said or 'it wrote no file'}")
    return metadata.version("ai-edge-quantizer")


def _worker(*words: object) -> str | None:
    """Run the worker; what it said last when it failed."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", litert_worker.__name__, *map(str, words)],
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}" + (" (out of memory?)" if done.returncode == -9 else "")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{lines[-1]:.300}" if lines else "it said nothing"
