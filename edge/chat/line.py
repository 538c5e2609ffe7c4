"""Where a person's lines come from: an editor with history where there is one, plain input elsewhere."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Read = Callable[[str], str]

HINT = "(for history that is kept: pip install 'edge-deploy[chat]')"


def reader(commands: Sequence[str], history: Path | None) -> tuple[Read, str | None]:
    """A function that asks for a line, and what to tell the person about it (or `None`).

    The function raises `EOFError` at Ctrl-D and `KeyboardInterrupt` at Ctrl-C.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are no reason to end a conversation
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _ask_on_stderr, None
    if importlib.util.find_spec("prompt_toolkit") is None:
        if importlib.util.find_spec("readline"):
            import readline  # noqa: F401  input() takes it up: arrows work, and this chat's lines come back
        return input, HINT
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    session: PromptSession[str] = PromptSession(
        history=_history(history),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
    )
    return session.prompt, None


def history_file() -> Path:
    """`$XDG_STATE_HOME/edge/chat-history`: lines the person typed, readable by nobody else."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "edge" / "chat-history"


def _history(path: Path | None) -> Any:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()  # a home that cannot be written to: history for this chat alone
    return FileHistory(str(path))


def _ask_on_stderr(prompt: str) -> str:
    """Standard output is somebody's file or pipe: only answers go there."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
