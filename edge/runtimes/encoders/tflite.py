"""Vision encoders on LiteRT: one view at a time, by the interpreter, which every device has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle
from edge.errors import EdgeError, InputError, UsageError
from edge.readers import tflite as reader
from edge.runtimes import litert
from edge.runtimes.cores import physical_cores
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.pixels import Views


class TfliteEncoder:
    """See `edge.runtimes.encoders.Encoder`."""

    def __init__(self, path: Path, threads: int) -> None:
        signatures = reader.read(path).signatures
        if len(signatures) != 1:
            raise InputError(
                f"{path} is no vision encoder: it has {len(signatures)} signatures", hint="export it again"
            )
        [(key, signature)] = signatures.items()
        if len(signature.inputs) != 1 or len(signature.outputs) != 1:
            raise InputError(f"{path} is no vision encoder: it takes {', '.join(signature.inputs)[:200]}")
        [(self._input, tensor)] = signature.inputs.items()
        [self._output] = signature.outputs
        self._shape = tuple(tensor.shape)
        self._run: Any = litert.open_signature(path, key, threads=threads)

    def encode(self, views: Views) -> np.ndarray:
        import numpy as np

        if self._run is None:
            raise UsageError("this encoder is closed", hint="open the bundle again")
        out = []
        for view in views.values:
            if view[None].shape != self._shape:
                raise EdgeError(f"the vision encoder takes {self._shape}, the picture is {view[None].shape}")
            try:
                found = self._run(**{self._input: view[None]})[self._output]
            except (RuntimeError, ValueError) as err:
                raise litert.failed(err) from None
            out.append(found.reshape(-1, found.shape[-1]).copy())
        rows: np.ndarray = np.concatenate(out)
        return rows

    def close(self) -> None:
        self._run = None


def load(folder: Path, bundle: Bundle, session: Session, *, threads: int | None = None) -> TfliteEncoder:
    """The encoder of a bundle of format `tflite`. Raises `InputError` for a file that cannot be one."""
    return TfliteEncoder(Path(folder) / bundle.parts["vision"], threads or physical_cores())
