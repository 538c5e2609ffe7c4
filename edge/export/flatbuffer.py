"""Writing TFLite files with LiteRT's own object API, fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(model: Any, path: Path) -> None:
    """Write what `flatbuffer_utils.read_model` read.

    Large weights come as memoryviews, which the library would write byte by byte: minutes for a model of
    some hundred MB. As arrays they are copied at once.
    """
    import numpy as np
    from ai_edge_litert.tools import flatbuffer_utils

    for buffer in model.buffers:
        if isinstance(buffer.data, memoryview):
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    flatbuffer_utils.write_model(model, str(path))
