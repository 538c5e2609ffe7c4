"""What goes wrong between a host and a phone, at a chosen moment.

Moments are counted in WRTE messages from the host: up to 256 KiB of a push, or of what a command reads.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from tests.rigs.adbd.wire import Died, Lost

What = Literal["cut", "die", "stall"]


@dataclass
class Faults:
    """Armed by tests; without anything armed the device works.

    `cut`    the cable is pulled: the daemon lives, and cleans up as adbd does
    `die`    the daemon is killed, with everything that it started: nothing is cleaned up
    `stall`  nothing comes through any more, and nobody says so, until `release`
    """

    bytes_per_s: float | None = None
    writes: int = 0  # how many have come so far
    _armed: dict[int, What] = field(default_factory=dict)
    _go: threading.Event = field(default_factory=threading.Event)

    def arm(self, what: What, after_writes: int) -> None:
        """Let it happen instead of the write that follows the next `after_writes` ones."""
        self._go.clear()
        self._armed[self.writes + after_writes] = what

    def release(self) -> None:
        """Disarm everything, and let what is stalled go on."""
        self._armed.clear()
        self.bytes_per_s = None
        self._go.set()

    def passing(self, n_bytes: int) -> None:
        """Called for each write before it is handed on."""
        what = self._armed.pop(self.writes, None)
        self.writes += 1
        if what == "cut":
            raise Lost
        if what == "die":
            raise Died
        if what == "stall":
            self._go.wait()
        if self.bytes_per_s is not None:
            time.sleep(n_bytes / self.bytes_per_s)
