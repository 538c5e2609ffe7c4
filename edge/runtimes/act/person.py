"""Asking the person at the terminal. What was typed before the question was shown is no answer to it."""

from __future__ import annotations

import sys
import termios
from collections.abc import Mapping
from typing import Any

from edge.runtimes.act.hands import Ask, Question
from edge.runtimes.act.schema import canonical
from edge.runtimes.act.words import for_person


def at_terminal() -> Ask | None:
    """Asks on standard error and reads standard input; None when either is no terminal: then nobody is there."""
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(question: Question) -> bool:
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    sys.stderr.write(f"{shown(question)}\nGo ahead, once? [y/N] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return False


def shown(question: Question) -> str:
    """The question as text: the tool, its risk, every argument, what would happen, why it is asked, what holds it."""
    bounds = f"confined by {question.confined_by}" if question.confined_by else "NOT confined: nothing here can"
    lines = [
        f"{question.tool.name} ({question.tool.risk})",
        *_listed(question.arguments),
        f"  would: {question.would}",
        f"  asked because {question.reason}; {bounds}",
    ]
    if question.origin != "user" and question.filled is None:
        lines.append(f"  words of a {question.origin} were in sight: they may have chosen this, or its values")
    elif question.filled:
        names = ", ".join(for_person(name) for name in question.filled)
        lines.append(f"  planned from your words; those of a {question.origin} may be in {names}")
    return "\n".join(lines)


def _listed(arguments: Mapping[str, Any]) -> list[str]:
    return [f"  {for_person(name)} = {for_person(canonical(value))}" for name, value in arguments.items()]
