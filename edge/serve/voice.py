"""A model's text as it comes, to what a client is told: up to a stop text, and calls apart from words.

What may be the beginning of a stop text or of a call is held back until it is certain.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.runtimes import tool_calls
from edge.runtimes.tool_calls import ToolCall

_OPEN = "<tool_call>"


class Voice:
    """Pushed a model's text piece by piece, it gives what can be said of it. With `tools`, it looks for calls.

    >>> voice = Voice(stops=["END"])
    >>> [voice.push(t) for t in ("a", " E", "ND b")], voice.stopped
    (['a', ' ', ''], True)
    """

    def __init__(self, stops: Sequence[str] = (), *, tools: bool = False) -> None:
        self._stops = tuple(stops)
        self._tools = tools
        self._held = ""  # not said yet
        self._calling = False  # what comes is a call: none of it is said
        self._said = False
        self.stopped = False
        self.calls: tuple[ToolCall, ...] = ()

    def push(self, text: str) -> str:
        """What can be said now; once `stopped`, nothing more is wanted."""
        if self.stopped:
            return ""
        self._held += text
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self._held = self._held[: min(ends)]
            self.stopped = True
        if self._tools and not self._calling:
            bare = not self._said and self._held.lstrip()[:1] in ("{", "[")
            self._calling = bare or _OPEN in self._held
        if self._calling or self.stopped:
            return ""
        keep = max((_overlap(self._held, s) for s in (*self._stops, *([_OPEN] if self._tools else ()))), default=0)
        if self._tools and not self._said and not self._held.strip():
            keep = len(self._held)  # blanks before what may be a call
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._said = self._said or bool(out)
        return out

    def end(self) -> str:
        """What is left to say when no more comes; `calls` are there then."""
        rest, self._held = self._held, ""
        if not self._tools:
            return rest
        answer = tool_calls.read(rest)
        if answer.calls:
            self.calls = answer.calls
            return answer.text
        return rest


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` may be the first of `stop`.

    >>> _overlap("ab", "bc")
    1
    """
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
