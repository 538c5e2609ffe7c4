"""A device for tests that lies in memory: `memory:NAME` keeps its store until the next start of this machine.

The same programs run there as everywhere: what is proven here is proven of them, not of an imitation.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from edge.devices.kinds.local import Local
from edge.errors import DeviceError, UsageError


class Memory(Local):
    """A local device whose store goes away with it, unless it has a name."""

    def __init__(self, name: str) -> None:
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
        if name:
            root = os.path.join(place, f"edge-memory-{os.getuid()}-{name}")
            Path(root).mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(root)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise DeviceError(f"{root} is somebody else's, or leads elsewhere", hint="take another name")
        else:
            root = tempfile.mkdtemp(prefix="edge-memory-", dir=place)
        self._temporary = not name
        super().__init__(root, f"memory:{name}")

    def close(self) -> None:
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)


def connect(rest: str = "") -> Memory:
    """A device called `rest`, or one that is forgotten when it is closed."""
    if not re.fullmatch(r"[\w-]{0,40}", rest):
        raise UsageError(f"a device in memory cannot be called {rest!r}", hint="use letters, digits and -")
    return Memory(rest)
