"""The interactive chat: reads lines, streams answers, obeys a few commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from edge.chat.screen import printable
from edge.errors import EdgeError
from edge.runtimes.conversation import Conversation
from edge.runtimes.model import Stats
from edge.runtimes.session import Sampling

HELP = """  /help           this list
  /reset          forget the conversation, keep the system prompt
  /system TEXT    tell the model something before everything else (and start over)
  /save FILE      keep the conversation
  /load FILE      go on with a kept one
  /stats          what the last answer took
  /quit           leave (or Ctrl-D)
  Ctrl-C stops an answer. A line that ends with \\ goes on in the next."""


class Chat:
    """One chat on a terminal. `read` gives a line, and raises `EOFError` or `KeyboardInterrupt`."""

    def __init__(
        self, conversation: Conversation, sampling: Sampling, read: Callable[[str], str], *, save: Path | None = None
    ) -> None:
        self.conversation = conversation
        self.sampling = sampling
        self._read = read
        self._save = save
        self._stats: Stats | None = None

    def run(self) -> None:
        """Until the person leaves; with `save`, the conversation is kept after every answer."""
        self._note(f"{self.conversation.model.bundle.name}, offline. /help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                line = self._line()
            except EOFError:
                self._out("\n")
                return
            except KeyboardInterrupt:
                self._note("\n(to leave: /quit or Ctrl-D)")
                continue
            if not line.strip():
                continue
            try:
                if line.startswith("/"):
                    if not self._command(line):
                        return
                else:
                    self._answer(line)
            except EdgeError as err:
                self._note(str(err))
            except OSError as err:
                self._note(f"{err.strerror}: {err.filename}")

    def _line(self) -> str:
        line = self._read("> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._read(". ")
        return line

    def _answer(self, text: str) -> None:
        dropped = self.conversation.dropped
        try:
            for piece in self.conversation.say(text, self.sampling):
                self._out(printable(piece.text))
        except KeyboardInterrupt:
            self._out(" ...")
            self._note("\n(stopped)")
        self._out("\n")
        self._stats = self.conversation.model.stats
        if self.conversation.dropped > dropped:
            turns = self.conversation.dropped - dropped
            self._note(f"(the context is full: the oldest {turns} turn{'s' if turns > 1 else ''} left out)")
        if self._stats and self._stats.stopped_by == "length":
            self._note(f"(cut at {self.sampling.max_tokens} tokens; more with --max-tokens)")
        if self._stats and self._stats.stopped_by == "context":
            self._note("(cut: the context is full)")
        if self._save:
            self.conversation.save(self._save)

    def _command(self, line: str) -> bool:
        """Obey it; false to leave."""
        name, _, rest = line[1:].partition(" ")
        rest = rest.strip()
        if name in ("quit", "exit", "q"):
            return False
        if name == "help":
            self._note(HELP)
        elif name == "reset":
            self.conversation.reset()
            self._note("(forgotten)")
        elif name == "system":
            self.conversation.reset()
            self.conversation.system = rest or None
            self._note("(a new conversation)")
        elif name in ("save", "load") and not rest:
            self._note(f"/{name} needs a file name")
        elif name == "save":
            self.conversation.save(Path(rest).expanduser())
            self._note(f"(kept in {rest})")
        elif name == "load":
            same = self.conversation.load(Path(rest).expanduser())
            self._note(
                f"({len(self.conversation.messages)} messages" + (")" if same else ", held with another bundle)")
            )
        elif name == "stats":
            self._note(describe(self._stats) if self._stats else "nothing was answered yet")
        else:
            self._note(f"there is no command /{printable(name)}\n{HELP}")
        return True

    def _out(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _note(self, text: str) -> None:
        """Words of ours, apart from the model's: dimmed, on stderr."""
        dim, plain = ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
        sys.stderr.write(f"{dim}{text}{plain}\n")
        sys.stderr.flush()


def describe(stats: Stats) -> str:
    """One line for people."""
    speed = "" if stats.tokens_per_second is None else f", {stats.tokens_per_second:.1f} tok/s"
    return (
        f"{stats.new_tokens} tokens in {stats.total_ms / 1000:.2f} s{speed}; first after {stats.ttft_ms:.0f} ms; "
        f"prompt {stats.prompt_tokens} tokens, {stats.reused_tokens} of them from the cache"
    )


def reader(history: Path | None = None) -> Callable[[str], str]:
    """A line editor with history where prompt-toolkit is installed, plain `input` elsewhere."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    except ImportError:
        return input
    store: History = InMemoryHistory()
    if history is not None:
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600, exist_ok=True)
            store = FileHistory(str(history))
        except OSError:
            pass  # a read-only home: history for this session only
    return PromptSession(history=store).prompt
