"""The keyboard while an answer comes: Ctrl-C ends the answer, not the program, and nothing echoes into it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_PATIENCE = 3  # whoever presses it so often wants out


class Stopped(Exception):
    """The person pressed Ctrl-C while a long prompt was read."""


class Interrupt:
    """Counts Ctrl-C instead of raising in the middle of the model's work.

    The answer is stopped between two tokens, where the session is whole. The third press is an
    ordinary `KeyboardInterrupt`, for the case that nothing happens.
    """

    def __init__(self) -> None:
        self.presses = 0
        self._before: Any = None

    def check(self) -> None:
        """Raise `Stopped` if it was pressed."""
        if self.presses:
            raise Stopped

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        self.presses += 1
        if self.presses >= _PATIENCE:
            raise KeyboardInterrupt


@contextmanager
def unechoed() -> Iterator[None]:
    """What is typed while an answer comes is kept for the next line, and not shown in the middle of the answer."""
    try:
        import termios
    except ImportError:  # not a system with such terminals
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = before.copy()
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
