"""edge: from a checkpoint to a proven bundle that runs offline on a device.

>>> import edge
>>> [done] = edge.export("smollm2", formats=["gguf"], quantization="8bit")  # doctest: +SKIP
>>> with edge.open(done.folder) as model:  # doctest: +SKIP
...     print("".join(piece.text for piece in model.generate("What is the capital of France?")))
The capital of France is Paris.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.export.pipeline import export
    from edge.runtimes.model import open_bundle as open

__version__ = "0.1.0"
__all__ = ["__version__", "export", "open"]


def __getattr__(name: str) -> Any:
    # Verbs are imported when they are used: `import edge` itself loads nothing.
    if name == "export":
        import importlib

        return importlib.import_module("edge.export")
    if name == "open":
        from edge.runtimes.model import open_bundle

        return open_bundle
    raise AttributeError(f"module 'edge' has no attribute {name!r}")
