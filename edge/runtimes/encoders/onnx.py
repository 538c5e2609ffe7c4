"""Vision encoders on onnxruntime: one view at a time, so that memory does not grow with the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError
from edge.runtimes.cores import physical_cores
from edge.runtimes.engines import onnx as engine
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.pixels import Views


class OnnxEncoder:
    """See `edge.runtimes.encoders.Encoder`."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._inner: Any = engine.open_graph(path, threads)
        inputs = {i.name: i for i in self._inner.get_inputs()}
        if "pixel_values" not in inputs:
            raise InputError(f"{path} is no vision encoder: its inputs are {', '.join(inputs)[:200]}")

    def encode(self, views: Views) -> np.ndarray:
        import numpy as np

        if self._inner is None:
            raise UsageError("this encoder is closed", hint="open the bundle again")
        out = []
        for view in views.values:
            try:
                found = self._inner.run(None, {"pixel_values": view[None]})[0]
            # onnxruntime raises its own exception types, none of which is exported.
            except Exception as err:  # noqa: BLE001
                reason = (str(err).splitlines() or [type(err).__name__])[0][:300]
                raise EdgeError(f"onnxruntime cannot encode the picture with {self._path.name}: {reason}") from None
            out.append(found.reshape(-1, found.shape[-1]))
        rows: np.ndarray = np.concatenate(out).astype(np.float32, copy=False)
        return rows

    def close(self) -> None:
        self._inner = None


def load(folder: Path, bundle: Bundle, session: Session, *, threads: int | None = None) -> OnnxEncoder:
    """The encoder of a bundle of format `onnx`. Raises `InputError` for a file that cannot be one."""
    return OnnxEncoder(engine.checked(Path(folder) / bundle.parts["vision"]), threads or physical_cores())
