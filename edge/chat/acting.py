"""Requests of a person to a model that acts: what is planned and done on standard error, answers on standard output."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from edge.chat.screen import printable
from edge.errors import EdgeError, UsageError
from edge.runtimes.act.hands import Ask, Question
from edge.runtimes.act.memory import Memory
from edge.runtimes.act.mind import Mind, Report
from edge.runtimes.act.perception import Given

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
    """Requests one after another, until there are no more; in a terminal also a few commands."""

    def __init__(self, mind: Mind, stop: Stop, read: Callable[[str], str], memory: Memory | None) -> None:
        self._mind, self._stop, self._read, self._memory = mind, stop, read, memory

    def run(self, given: Sequence[Given] = ()) -> bool:
        """Whether all of every request was done. Files and pictures that were given come with the first."""
        whole = True
        while True:
            try:
                line = self._read("> ").strip()
                if line.startswith("/"):
                    if not self._obey(line):
                        return whole
                elif line:
                    with self._stop.watching():
                        report = self._mind.act(line, given)
                    given = ()
                    whole &= report.whole
                    show(report)
            except EOFError:
                return whole
            except KeyboardInterrupt:
                note("(to leave: /quit or Ctrl-D)")
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
            for tool in self._mind.hands.manifest.tools.values():
                note(f"  {tool.name} ({tool.risk})  {printable(tool.description)}")
        elif word in ("memory", "edit", "forget"):
            if self._memory is None:
                raise UsageError("nothing is remembered: this was started with --no-memory")
            remembered(
                self._memory, ["list" if word == "memory" else word, *rest.split(maxsplit=1 if word == "edit" else -1)]
            )
        else:
            raise UsageError(f"there is no command /{word}", hint="/help lists them")
        return True


def remembered(memory: Memory, words: Sequence[str]) -> None:
    """`list`, `edit N TEXT`, `forget N`, `forget all`: what of them was said, done. Raises `UsageError` for others."""
    action, *rest = words
    if action == "list" and not rest:
        for kept in reversed(memory.list()):
            sys.stdout.write(f"{kept.id:5}  {kept.origin:4}  {printable(kept.text)}\n")
    elif action == "edit" and len(rest) >= 2 and rest[0].isdigit():
        memory.edit(int(rest[0]), " ".join(rest[1:]))
    elif action == "forget" and rest == ["all"]:
        for kept in memory.list():
            memory.forget(kept.id)
    elif action == "forget" and rest and all(n.isdigit() for n in rest):
        for n in rest:
            memory.forget(int(n))
    else:
        raise UsageError(
            f"cannot do {' '.join(words)!r} with what is remembered",
            hint="there are: list, edit N TEXT, forget N, forget all",
        )


def show(report: Report) -> None:
    """The answer alone, on standard output."""
    if report.answer:
        sys.stdout.write(printable(report.answer) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    """Words of the program, on standard error."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()
