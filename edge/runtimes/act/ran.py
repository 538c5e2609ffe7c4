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
    """What became of a tool. `ended` is false when it was stopped, or lost: what it has changed is not known."""

    ok: bool
    output: bytes
    why: str = ""
    ended: bool = True


class ToolError(EdgeError):
    """A tool could not do what was asked; it changed nothing."""


@dataclass(frozen=True)
class Place:
    """Where and when tools run: the folder of what edge keeps, the clock, and what stays open until the hands close."""

    state: Path
    now: Callable[[], datetime] = datetime.now
    kept: dict[Any, Any] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)


Arguments = Mapping[str, Any]
