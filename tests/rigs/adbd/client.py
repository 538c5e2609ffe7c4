"""The stock `adb` client with a server, a home and keys of its own: it neither sees nor disturbs the user's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from edge import cache

INSTALL = "apt-get install adb"
_FIRST, _LAST = 5554, 5585  # where adb looks for emulators


class Adb:
    """Use it as a context manager; call it like the command.

    >>> with Adb(tmp_path) as adb:  # doctest: +SKIP
    ...     adb("connect", device.serial)
    ...     assert adb("-s", device.serial, "shell", "echo hello").stdout == "hello\\n"
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = _free_port()
        self._cache = cache.root()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs in its environment so that its `adb` is this one."""
        # adb keeps its keys at home. Of edge, only the cache would be there, which stays where it is.
        home, port = str(self.home), str(self.port)
        return {"HOME": home, "TMPDIR": home, "ANDROID_ADB_SERVER_PORT": port, "EDGE_CACHE": str(self._cache)}

    def __call__(
        self, *words: str, input: bytes | None = None, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        done = self.raw(*words, input=input, timeout_s=timeout_s)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )

    def raw(self, *words: str, input: bytes | None = None, timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
        given = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            ["adb", *words], env={**os.environ, **self.environment}, capture_output=True, timeout=timeout_s, **given
        )

    def states(self) -> dict[str, str]:
        """Serial to state, as `adb devices` says."""
        lines = self("devices").stdout.splitlines()[1:]
        return dict(line.split("\t") for line in lines if "\t" in line)

    def __enter__(self) -> Adb:
        self.home.mkdir(parents=True, exist_ok=True)
        self("start-server")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self("kill-server")


def missing() -> str | None:
    """Why the client cannot be used here, and what installs it."""
    return None if shutil.which("adb") else f"there is no adb here; install it with: {INSTALL}"


def _free_port() -> int:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as s:
            port: int = s.getsockname()[1]
        if not _FIRST <= port <= _LAST:
            return port
