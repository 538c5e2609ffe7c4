"""Progress of long work: steps report, and whoever started them decides how to show it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """`start` opens a step, `advance` says how far it is, `say` gives one line worth keeping.

    With `unit` "bytes", a step is shown with its rate and the time that is left.
    """

    def start(self, step: str, total: float | None = None, unit: str | None = None) -> None: ...
    def advance(self, done: float) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    """Shows nothing: the default of the Python API."""

    def start(self, step: str, total: float | None = None, unit: str | None = None) -> None:
        pass

    def advance(self, done: float) -> None:
        pass

    def say(self, line: str) -> None:
        pass
