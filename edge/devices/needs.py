"""Programs of this machine that it takes to reach devices, and to build for them.

Whoever needs one says so where it is used, with `NEED = Need(...)`: a kind of device, a part of the pack or of cards.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from edge.find import load, names

_PLACES = ("edge.devices.kinds", "edge.devices.pack", "edge.devices.card")
_ASK_S = 10


@dataclass(frozen=True)
class Need:
    """`programs` are all needed; the first one says its version when it is called with `ask`."""

    name: str
    programs: tuple[str, ...]
    ask: str
    install: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Those that are not there."""
        return tuple(program for program in self.programs if shutil.which(program) is None)

    def record(self) -> dict[str, Any]:
        """As JSON: what is there, what is not, and the line that installs it."""
        missing = self.missing
        return {
            "version": None if self.programs[0] in missing else self._version(),
            "missing": list(missing),
            "install": self.install if missing else None,
        }

    def _version(self) -> str | None:
        """The first line of what it says; ssh says it on stderr."""
        try:
            done = subprocess.run(
                [self.programs[0], self.ask], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=_ASK_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), None)


def every() -> tuple[Need, ...]:
    """All that anybody names."""
    rooms = (load(place, name) for place in _PLACES for name in names(place))
    return tuple(room.NEED for room in rooms if hasattr(room, "NEED"))
