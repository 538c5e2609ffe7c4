"""Requests of a person to a model that acts: what is planned and done on standard error, answers on standard output."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from edge.chat.screen import printable
from edge.errors import DeviceError, EdgeError, UsageError
from edge.runtimes.act.hands import Ask, Question
from edge.runtimes.act.manifest import Manifest

_PATIENCE = 3  # whoever presses Ctrl-C so often wants out at once


@dataclass
class Stop:
    """Ctrl-C: counted while the model writes and a tool runs, so that neither is left half-done.

    At a question it means no, and the end. The third press is an ordinary `KeyboardInterrupt`.
    """

    presses: int = 0
    _asking: bool = field(default=False)

    def __call__(self) -> bool:
        """Whether it was pressed."""
        return self.presses > 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count from now on."""
        self.presses = 0
        before = signal.signal(signal.SIGINT, self._pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        self.presses += 1
        if self._asking or self.presses >= _PATIENCE:
            raise KeyboardInterrupt

    def around(self, ask: Ask | None) -> Ask | None:
        """`ask`, which Ctrl-C answers with no."""
        if ask is None:
            return None

        def asked(question: Question) -> bool:
            self._asking = True
            try:
                return ask(question)
            except KeyboardInterrupt:
                return False
            finally:
                self._asking = False

        return asked

    def line(self, read: Callable[[str], str]) -> Callable[[str], str | None]:
        """`read` for a question of the program: None when there is no answer."""

        def asked(question: str) -> str | None:
            self._asking = True
            try:
                return read(f"{printable(question)} ")
            except (EOFError, KeyboardInterrupt):
                note("")
                return None
            finally:
                self._asking = False

        return asked


class Session:
    """Requests one after another, until there are no more; in a terminal also a few commands.

    `act` does a request and gives its record (`edge.runtimes.act.record`); `remember` is what `/memory` asks
    (`edge.runtimes.act.memory.obey`), None when nothing is remembered.
    """

    def __init__(
        self,
        act: Callable[[str], Mapping[str, Any]],
        tools: Manifest,
        stop: Stop,
        read: Callable[[str], str],
        remember: Callable[[Sequence[str]], list[str]] | None,
    ) -> None:
        self._act, self._tools, self._stop, self._read, self._remember = act, tools, stop, read, remember

    def run(self) -> bool:
        """Whether all of every request was done."""
        whole = True
        while True:
            try:
                line = self._read("> ").strip()
                if line.startswith("/"):
                    if not self._obey(line):
                        return whole
                elif line:
                    with self._stop.watching():
                        report = self._act(line)
                    whole &= report["whole"]
                    show(report)
            except EOFError:
                return whole
            except KeyboardInterrupt:
                note("(to leave: /quit or Ctrl-D)")
            except DeviceError:
                raise  # there is nobody to go on with
            except EdgeError as err:
                whole = False
                note(f"edge: {printable(str(err))}")

    def _obey(self, line: str) -> bool:
        word, _, rest = line[1:].partition(" ")
        if word in ("quit", "exit"):
            return False
        if word == "help":
            note("/tools lists what can be done; /memory lists what is remembered; /edit N TEXT; /forget N; /quit")
        elif word == "tools":
            for tool in self._tools.tools.values():
                note(f"  {tool.name} ({tool.risk})  {printable(tool.description)}")
        elif word in ("memory", "edit", "forget"):
            if self._remember is None:
                raise UsageError("nothing is remembered: this was started with --no-memory")
            words = ["list" if word == "memory" else word, *rest.split(maxsplit=1 if word == "edit" else -1)]
            listed(self._remember(words))
        else:
            raise UsageError(f"there is no command /{word}", hint="/help lists them")
        return True


def listed(lines: Sequence[str]) -> None:
    """Lines that were asked for, on standard output."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def show(report: Mapping[str, Any]) -> None:
    """The answer alone, on standard output."""
    if report["answer"]:
        sys.stdout.write(printable(report["answer"]) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    """Words of the program, on standard error."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()
