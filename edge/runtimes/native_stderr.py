"""What native libraries write to standard error, kept instead of shown: at hand when something fails."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_TAIL_BYTES = 1 << 16


class NativeLog:
    """What was written inside the block, once it has ended."""

    def __init__(self) -> None:
        self.text = ""

    def reason(self) -> str:
        """The first line that calls itself an error, or the last one there is."""
        lines = [" ".join(line.split()) for line in self.text.splitlines() if line.strip()]
        return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it gave no reason")


@contextmanager
def captured() -> Iterator[NativeLog]:
    """Collect what is written to file descriptor 2 inside the block, by whatever library."""
    log = NativeLog()
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield log
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(max(0, sink.seek(0, os.SEEK_END) - _TAIL_BYTES))
            log.text = sink.read().decode("utf-8", "replace")
