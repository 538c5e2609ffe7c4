"""mobius in a process of its own: its memory is given back, and what it prints stays inside."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edge.errors import EdgeError
from edge.export import preflight
from edge.export.checkpoint import Checkpoint
from edge.progress import Progress

_TIMEOUT_S = 6 * 3600


def build(checkpoint: Checkpoint, folder: Path, progress: Progress, *, weights: bool = True) -> str:
    """Write the float32 graph, with `weights` or without, and genai_config.json into `folder`; mobius's version.

    Raises `EdgeError` with the last line of what mobius said when it fails.
    """
    progress.start("building the ONNX graph")
    argv = [
        sys.executable, "-m", "mobius", "build", "--config", str(checkpoint.folder), "--ep", "cpu", "--dtype", "f32",
        "--runtime", "ort-genai", *([] if weights else ["--no-weights"]), str(folder),
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        argv, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0 or not (folder / "model.onnx").is_file():
        preflight.refuse_full_disk(folder)
        said = ([line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"])[-1]
        raise EdgeError(
            f"mobius cannot build {checkpoint.name} ({checkpoint.model_type}): {said:.300}",
            hint="choose another format, or another exporter: --exporter optimum",
        )
    return importlib.metadata.version("mobius-onnx")


def remove(folder: Path) -> None:
    """The intermediate files, once they are not needed any more."""
    shutil.rmtree(folder)
