"""The conversation in a terminal: reads lines, streams answers, obeys a few commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from edge.chat import attach
from edge.chat.interrupt import Interrupt, Stopped, unechoed
from edge.chat.screen import printable
from edge.errors import EdgeError, UsageError
from edge.runtimes.conversation import Conversation
from edge.runtimes.model import Stats
from edge.runtimes.session import Sampling


class Renderer(Protocol):
    """Shows an answer as it comes; gets text that is safe to print."""

    def push(self, text: str) -> None: ...
    def flush(self) -> None: ...


class Plain:
    """The answer as it is, every piece at once."""

    def push(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def flush(self) -> None:
        self.push("\n")


class Terminal:
    """One conversation with a person.

    `read` gives a line, and raises `EOFError` or `KeyboardInterrupt`. With `save`, the
    conversation is kept there after every answer.
    """

    def __init__(
        self,
        conversation: Conversation,
        sampling: Sampling,
        read: Callable[[str], str],
        *,
        save: Path | None = None,
        any_bundle: bool = False,
        renderer: Renderer | None = None,
        images: Sequence[Path] = (),
    ) -> None:
        self.conversation = conversation
        self.sampling = sampling
        self._read = read
        self._save = save
        self._any_bundle = any_bundle
        self._renderer = renderer or Plain()
        self._stats: Stats | None = None
        self._attached = list(images)  # what the next question is about

    def run(self) -> None:
        """Until the person leaves."""
        model = self.conversation.model
        self.note(f"{printable(model.bundle.name)}, offline. /help lists the commands, Ctrl-D leaves.")
        if model.template is None:
            self.note("(this model was not made for chat: it continues each text you give it)")
        if self.conversation.messages:
            self.note(f"(going on after {turns(len(self.conversation.messages) // 2)})")
        while True:
            try:
                line, images = self._look_for_pictures(self._line())
                if line.startswith("/") and not images:
                    if not self._obey(line):
                        return
                elif line.strip():
                    self._answer(line)
                elif images:
                    self.note("(now ask about it)")
            except EOFError:
                self.note("")
                return
            except KeyboardInterrupt:
                self.note("\n(to leave: /quit or Ctrl-D)")
            except EdgeError as err:
                self.note(f"edge: {printable(str(err))}")
            except OSError as err:
                self.note(f"edge: {err.strerror}: {err.filename}")

    def note(self, text: str) -> None:
        """Words of ours, apart from the model's: on stderr, dim in a terminal."""
        plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        sys.stderr.write(f"{text}\n" if plain else f"\x1b[2m{text}\x1b[0m\n")
        sys.stderr.flush()

    def _line(self) -> str:
        line = self._read("> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._read(". ")
        return line

    def _look_for_pictures(self, line: str) -> tuple[str, list[Path]]:
        """The line without the files of pictures in it, which are attached to the question; both say so."""
        text, images = attach.find(line)
        model = self.conversation.model
        if images and not model.bundle.image:
            self.note("(this model does not see: the path is sent as words)")
            return (f" {line}" if line.startswith("/") else line), []
        for path in images:
            self.note(f"(attached {attach.describe(model, path)})")
        self._attached += images
        return text, images

    def _answer(self, text: str) -> None:
        images, self._attached = self._attached, []
        with unechoed(), Interrupt() as interrupt:
            reading = _Reading(interrupt)
            pieces = self.conversation.say(text, self.sampling, images=images, reading=reading)
            began = False
            try:
                for piece in pieces:
                    reading.clear()
                    began = True
                    self._renderer.push(printable(piece.text))
                    if interrupt.presses:
                        break
            except Stopped:
                reading.clear()
            except EdgeError:
                self._attached = [*images, *self._attached]  # for the question that is asked instead
                raise
            finally:
                # Closing it remembers the answer as far as it came.
                getattr(pieces, "close", lambda: None)()
            if began:
                self._renderer.flush()
        self._stats = self.conversation.model.stats
        for line in self._remarks(stopped=interrupt.presses > 0, began=began):
            self.note(line)
        if self._save:
            self.conversation.save(self._save)

    def _remarks(self, *, stopped: bool, began: bool) -> list[str]:
        found = []
        if self.conversation.dropped:
            found.append(f"(the context is full: dropped {turns(self.conversation.dropped)}, oldest first)")
        if stopped:
            found.append("(stopped)" if began else "(stopped before the answer began; the question is forgotten)")
        elif self._stats and self._stats.stopped_by == "length":
            found.append(f"(cut at {self.sampling.max_tokens} tokens; longer with --max-tokens)")
        elif self._stats and self._stats.stopped_by == "context":
            found.append("(cut: the context is full)")
        return found

    def _obey(self, line: str) -> bool:
        """Do what the command says; false to leave."""
        name, _, rest = line.rstrip().partition(" ")
        if name in ("/quit", "/exit"):
            return False
        if name not in COMMANDS:
            raise UsageError(f"there is no command {name}", hint="/help lists them; a space before it makes it text")
        COMMANDS[name][2](self, rest.strip())
        return True

    def _help(self, rest: str) -> None:
        for name, (argument, about, _) in COMMANDS.items():
            self.note(f"  {f'{name} {argument}':<16}{about}")
        if self.conversation.model.bundle.image:
            self.note("  A picture's path in a question attaches it: drag the file into the line.")
        self.note("  Ctrl-C stops an answer. A line that ends with \\ goes on in the next.")

    def _reset(self, rest: str) -> None:
        self.conversation.reset()
        self.note("(forgotten, but for the system prompt)" if self.conversation.system else "(forgotten)")

    def _system(self, rest: str) -> None:
        if not rest:
            self.note(printable(self.conversation.system or "(no system prompt)"))
            return
        self.conversation.system = None if rest == "off" else rest
        self.note("(holds from the next question on)")

    def _keep(self, rest: str) -> None:
        path = Path(os.path.expanduser(rest)) if rest else self._save
        if path is None:
            raise UsageError("/save needs the name of a file")
        self.conversation.save(path)
        self.note(f"(kept in {path})")

    def _load(self, rest: str) -> None:
        if not rest:
            raise UsageError("/load needs the name of a file")
        self.conversation.load(Path(os.path.expanduser(rest)), any_bundle=self._any_bundle)
        self.note(f"(going on after {turns(len(self.conversation.messages) // 2)})")

    def _show_stats(self, rest: str) -> None:
        model = self.conversation.model
        self.note(describe(self._stats) if self._stats else "nothing was answered yet")
        said = turns(len(self.conversation.messages) // 2)
        self.note(f"{said}; {model.session.position} of {model.context_length} tokens held")
        self.note("drawn with " + ", ".join(f"{k} {v}" for k, v in asdict(self.sampling).items()))


Command = tuple[str, str, Callable[[Terminal, str], None]]
COMMANDS: dict[str, Command] = {
    "/help": ("", "this list", Terminal._help),
    "/reset": ("", "forget what was said, keep the system prompt", Terminal._reset),
    "/system": ("[TEXT|off]", "show or change what the model is told before everything else", Terminal._system),
    "/save": ("[FILE]", "keep the conversation", Terminal._keep),
    "/load": ("FILE", "go on with a kept one", Terminal._load),
    "/stats": ("", "what the last answer took", Terminal._show_stats),
    "/quit": ("", "leave, as does Ctrl-D", lambda terminal, rest: None),
}


class _Reading:
    """Shows how much of a long prompt has been read, and stops there when Ctrl-C was pressed."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        self._interrupt.check()
        if sys.stderr.isatty():
            sys.stderr.write(f"\rreading {100 * done // total} %")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r" + " " * len("reading 100 %") + "\r")
            sys.stderr.flush()
            self._shown = False


def turns(n: int) -> str:
    """Turns, counted."""
    return "1 turn" if n == 1 else f"{n} turns"


def describe(stats: Stats) -> str:
    """What an answer took, in one line.

    >>> describe(Stats(20, 12, 3, 8.0, 100.0, 28.0, "end"))
    '3 tokens in 0.03 s, 100.0 tokens/s after the first; first after 8 ms; prompt 20 tokens, 12 of them held already'
    """
    speed = "" if stats.tokens_per_second is None else f", {stats.tokens_per_second:.1f} tokens/s after the first"
    ahead = f"; {stats.accepted_tokens} of {stats.guessed_tokens} guesses came true" if stats.guessed_tokens else ""
    first = "" if stats.ttft_ms is None else f"; first after {stats.ttft_ms:.0f} ms"
    return (
        f"{stats.new_tokens} tokens in {stats.total_ms / 1000:.2f} s{speed}{first}; "
        f"prompt {stats.prompt_tokens} tokens, {stats.reused_tokens} of them held already{ahead}"
    )
