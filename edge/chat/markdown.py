"""Markdown for a terminal, block by block as it streams in (with `rich`)."""

from __future__ import annotations

import sys
from typing import Any

from edge.errors import require

_FENCES = ("```", "~~~")


class Blocks:
    """Cuts a stream into blocks that stand alone: at blank lines, but not inside a code fence.

    >>> blocks = Blocks()
    >>> blocks.push("Hello\\n\\n```\\na\\n\\nb\\n")
    ['Hello\\n']
    >>> blocks.push("```\\n") + [blocks.flush()]
    ['```\\na\\n\\nb\\n```\\n', '']
    """

    def __init__(self) -> None:
        self._line = ""
        self._block = ""
        self._fence = ""

    def push(self, text: str) -> list[str]:
        """The blocks that `text` completes."""
        done = []
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            stripped = line.strip()
            if self._fence:
                self._block += line + "\n"
                if stripped.startswith(self._fence) and not stripped.strip(self._fence[0]):
                    self._fence = ""
                    done.append(self._take())
            elif not stripped:
                done.append(self._take())
            else:
                self._fence = next((f for f in _FENCES if stripped.startswith(f)), "")
                self._block += line + "\n"
        return [b for b in done if b]

    def flush(self) -> str:
        """What is left at the end."""
        rest = self._take() + self._line
        self._line = self._fence = ""
        return rest

    def _take(self) -> str:
        block, self._block = self._block, ""
        return block


class Rendered:
    """Prints blocks with rich: links are spelled out, text that is no Markdown comes through as it is."""

    def __init__(self) -> None:
        require("rich", extra="chat", purpose="showing Markdown")
        from rich.console import Console

        self._console: Any = Console(file=sys.stdout, highlight=False)
        self._blocks = Blocks()

    def push(self, text: str) -> None:
        for block in self._blocks.push(text):
            self._show(block)

    def flush(self) -> None:
        if rest := self._blocks.flush():
            self._show(rest)

    def _show(self, block: str) -> None:
        from rich.markdown import Markdown

        self._console.print(Markdown(block, hyperlinks=False))
