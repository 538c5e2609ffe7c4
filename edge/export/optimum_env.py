"""optimum's ONNX exporter, which needs an older transformers: in a folder of its own, beside this environment's torch.

    edge doctor --install optimum

puts it there; nothing else does. The folder comes first on the path of the process that exports, so that
everything it does not hold (torch, numpy, onnx) is this environment's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from edge.errors import EdgeError, MissingError
from edge.export import cache, optimum_worker
from edge.export.checkpoint import Checkpoint
from edge.progress import Progress

PINS = (
    "optimum==2.1.0", "optimum-onnx==0.1.0", "transformers==4.57.6", "huggingface-hub==0.36.2", "tokenizers==0.22.2",
)  # fmt: skip
VERSION = "optimum-onnx 0.1.0"
_KIND = "optimum"
_TIMEOUT_S = 6 * 3600


def folder() -> Path | None:
    """Where it is installed, `None` when it is not."""
    return cache.find(_KIND, cache.key(pins=PINS))


def install() -> Path:
    """Install it with pip, without what is here already; where it is. Raises `EdgeError` when pip fails."""
    if found := folder():
        return found
    with cache.building(_KIND, cache.key(pins=PINS)) as work:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(work), *PINS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = ([line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"])[-1]
            raise EdgeError(f"pip cannot install optimum: {said:.300}", hint="is a package index within reach?")
    return cache.root() / _KIND / cache.key(pins=PINS)


def export(checkpoint: Checkpoint, target: Path, progress: Progress) -> None:
    """Write `target/model.onnx` in float32, with past keys and values as inputs that grow.

    Raises `MissingError` when optimum is not installed, `EdgeError` with its last words when it fails.
    """
    place = folder()
    if place is None:
        raise MissingError(
            "--exporter optimum needs optimum's exporter, which is not installed",
            hint="install it with: edge doctor --install optimum",
        )
    progress.start("tracing the ONNX graph with optimum")
    view = _older_view(checkpoint, target / "checkpoint")
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-P", str(optimum_worker.__file__), str(view), str(target)],
        env={**os.environ, **quiet, "PYTHONPATH": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0 or not (target / "model.onnx").is_file():
        said = ([line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"])[-1]
        raise EdgeError(
            f"optimum cannot export {checkpoint.name} ({checkpoint.model_type}): {said:.300}",
            hint="leave out --exporter, or choose another format",
        )


def _older_view(checkpoint: Checkpoint, view: Path) -> Path:
    """The checkpoint with a config.json that transformers 4 understands: it would pass over `rope_parameters`."""
    view.mkdir(parents=True)
    for path in checkpoint.folder.iterdir():
        if path.name != "config.json":
            (view / path.name).symlink_to(path.resolve())
    config = dict(checkpoint.config)
    rotary = config.pop("rope_parameters", None)
    if isinstance(rotary, dict) and "rope_theta" in rotary:
        config["rope_theta"] = rotary["rope_theta"]
        rest = {k: v for k, v in rotary.items() if k != "rope_theta"}
        config["rope_scaling"] = None if rest.get("rope_type", "default") == "default" else rest
    (view / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return view
