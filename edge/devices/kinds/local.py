"""This machine as a device: `local`, or `local:FOLDER` with its store in FOLDER."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.devices.device import Done
from edge.devices.process import Process
from edge.errors import DeviceError


class Local:
    """Programs of this machine, as the user who asks."""

    def __init__(self, root: str, address: str = "local") -> None:
        self.address, self.root, self.python = address, root, sys.executable

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        try:
            return self.open(argv).talk(stdin, timeout_s)
        except DeviceError as err:
            if "not installed" in err.message:
                return Done(127, b"", err.message.encode())
            raise

    def push(self, path: Path, remote: str) -> None:
        shutil.copyfile(path, remote)

    def pull(self, remote: str, path: Path) -> None:
        shutil.copyfile(remote, path)

    def open(self, argv: Sequence[str]) -> Process:
        return Process(argv, name=self.address)

    def close(self) -> None:
        pass


def connect(rest: str = "") -> Local:
    """`rest` is the store's folder; without it, the user's own place for data."""
    if rest:
        return Local(os.path.abspath(os.path.expanduser(rest)), f"local:{rest}")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Local(os.path.join(data, "edge"))
