"""How long work is shown: one live line per step on a terminal, nothing when piped."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from edge.progress import Progress, Silent


class Live:
    """Steps with a bar or a spinner and their time, on stderr (with `rich`)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False)
        self._bars: Any = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[moved]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None
        self._step = ""
        self._began = 0.0
        self._total = 0.0
        self._bytes = False
        self._bars.start()

    def start(self, step: str, total: float | None = None, unit: str | None = None) -> None:
        self._finish()
        self._step, self._began = step, time.perf_counter()
        self._total, self._bytes = total or 0.0, unit == "bytes"
        self._task = self._bars.add_task(step, total=total, moved="")

    def advance(self, done: float) -> None:
        spent_s = time.perf_counter() - self._began
        moved = rate(done, self._total, spent_s) if self._bytes else ""
        self._bars.update(self._task, completed=done, moved=moved)

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False)

    def close(self) -> None:
        self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is None:
            return
        self._bars.remove_task(self._task)
        self._task = None
        spent_s = time.perf_counter() - self._began
        # Steps that came from the cache, or took no time, need no line.
        if spent_s >= 0.5:
            self.say(f"  {self._step:<60} {spent_s:6.1f} s")


def rate(done: float, total: float, spent_s: float) -> str:
    """How fast bytes go, and how long the rest will take at that.

    >>> rate(30e6, 100e6, 3.0)
    '30.0 of 100.0 MB, 10.0 MB/s, 7 s left'
    >>> rate(0, 100e6, 0.0)
    '0.0 of 100.0 MB'
    """
    text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
    if done <= 0 or spent_s <= 0:
        return text
    return f"{text}, {done / spent_s / 1e6:.1f} MB/s, {(total - done) * spent_s / done:.0f} s left"


class shown:
    """`Live` on a terminal that has rich, `Silent` otherwise."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._live: Live | None = None
        if not quiet and sys.stderr.isatty():
            try:
                self._live = Live()
            except ImportError:
                self._live = None

    def __enter__(self) -> Progress:
        return self._live or Silent()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.close()
