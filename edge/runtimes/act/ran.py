"""What an executor gives and gets: plain values between the hands and what runs a tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.errors import EdgeError


@dataclass(frozen=True)
class Ran:
    """What became of a tool. `ended` is false when it was stopped, or lost: what it has changed is not known.

    `own` says that there are no words in it but edge's, about arguments that it was given.
    """

    ok: bool
    output: bytes
    why: str = ""
    ended: bool = True
    own: bool = False


class ToolError(EdgeError):
    """A tool could not do what was asked; it changed nothing."""


class Relayed(ToolError):
    """The same in the words of another program or device, which are not edge's own."""


@dataclass(frozen=True)
class Place:
    """Where and when tools run: the folder of what edge keeps, the clock, and what stays open until the hands close."""

    state: Path
    now: Callable[[], datetime] = datetime.now
    kept: dict[Any, Any] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)


Arguments = Mapping[str, Any]
