"""The Device protocol: how to reach a machine. What is done there is built once on top of it.

A kind of device is one file in `edge/devices/kinds/` with `connect(rest) -> Device`, where `rest`
is what follows the kind in its address: `ssh://pi@host` is kind `ssh` with rest `pi@host`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edge.errors import DeviceError

STALL_S = 30.0  # a link that moves no byte for so long is given up


class LinkLost(DeviceError):
    """The device cannot be reached, or the way to it broke: what ran there may or may not have ended.

    Everything in this package that was interrupted so may be asked for again.
    """


@dataclass(frozen=True)
class Done:
    """What a program on the device left: its exit code (128 + n when signal n killed it), and what it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", errors="replace")

    @property
    def reason(self) -> str:
        """The last line that it wrote on stderr, or its exit code: for error messages."""
        lines = self.err.decode("utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with code {self.code}"


class Ended(DeviceError):
    """The program ended by itself while there was more to write; `done` says how."""

    def __init__(self, name: str, done: Done) -> None:
        super().__init__(f"{name} stopped listening: {done.reason}")
        self.done = done


@runtime_checkable
class Stream(Protocol):
    """A program that runs on the device, and both ends of its pipes. One thread at each end."""

    def write(self, data: bytes, timeout_s: float = STALL_S) -> None:
        """All of `data` into its stdin. `LinkLost` when it takes nothing for `timeout_s`, `Ended` when it has."""
        ...

    def read(self, most: int = 1 << 16, timeout_s: float | None = None) -> bytes:
        """What it wrote, as soon as there is something; empty at the end. `LinkLost` after `timeout_s`."""
        ...

    def readline(self, timeout_s: float | None = None) -> bytes:
        """One line with its newline; empty at the end."""
        ...

    def finish(self, timeout_s: float = STALL_S) -> Done:
        """Close its stdin, read the rest, wait for its end. `LinkLost` when the link broke instead."""
        ...

    def kill(self) -> None:
        """Drop it; a second call does nothing."""
        ...


@runtime_checkable
class Device(Protocol):
    """A machine. `address` is what a person types to mean it; `root` is where its store lies by default.

    `argv` reaches the program word for word, whatever is in it: spaces, quotes, `;`, `$()`, newlines.
    `python` is an interpreter there that may have the runtimes; empty means to try `python3`.
    A program that is not there ends with code 127. `LinkLost` is raised when the device cannot be
    reached; a program's own failure is a `Done` with its code.
    """

    address: str
    root: str
    python: str

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        """Run a program to its end. `LinkLost` after `timeout_s`."""
        ...

    def push(self, path: Path, remote: str) -> None:
        """A file of this machine to the device, in place of what is there: not atomic, not checked."""
        ...

    def pull(self, remote: str, path: Path) -> None:
        """A file of the device to this machine."""
        ...

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a program and talk to it."""
        ...

    def close(self) -> None:
        """Let go of the connection; a second call does nothing."""
        ...
