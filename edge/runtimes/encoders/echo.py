"""Pictures without an encoder: each row of features is how bright a band of the picture is, 0 to 255.

The echo runtime takes such a row for the token of that id, so what it repeats shows what it saw.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle import Bundle
from edge.errors import UsageError
from edge.runtimes.session import Session

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.pixels import Views


class EchoEncoder:
    """See `edge.runtimes.encoders.Encoder`. `encoded` counts the pictures."""

    def __init__(self) -> None:
        self.encoded = 0
        self._open = True

    def encode(self, views: Views) -> np.ndarray:
        import numpy as np

        if not self._open:
            raise UsageError("this encoder is closed", hint="open the bundle again")
        self.encoded += 1
        bands = np.array_split(views.rgb.reshape(-1, 3), views.n_tokens)
        return np.array([[np.rint(band.mean())] for band in bands], np.float32)

    def close(self) -> None:
        self._open = False


def load(folder: Path, bundle: Bundle, session: Session, *, threads: int | None = None) -> EchoEncoder:
    """An encoder for any bundle of format `echo` that sees."""
    return EchoEncoder()
