"""A conversation: its messages, what fits the context, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError
from edge.runtimes.model import Model, Piece
from edge.runtimes.session import ContextFull, Sampling

_VERSION = 1
_LIMIT_BYTES = 16 << 20
_ROLES = ("system", "user", "assistant")


class Conversation:
    """Turns with one model. `messages` is what the template gets, the system prompt first."""

    def __init__(self, model: Model, *, system: str | None = None) -> None:
        self.model = model
        self.messages: list[dict[str, str]] = []
        self.dropped = 0
        self.system = system

    @property
    def system(self) -> str | None:
        """What the model is told before everything else."""
        first = self.messages[0] if self.messages else {}
        return first.get("content") if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        if self.system is not None:
            self.messages.pop(0)
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [m for m in self.messages if m["role"] == "system"]
        self.dropped = 0

    def say(self, text: str, sampling: Sampling) -> Iterator[Piece]:
        """Stream the answer to `text`; both join the messages, the answer as far as it came.

        When the conversation no longer fits, its oldest turns are left out, the system prompt
        never; `dropped` counts them. Raises `ContextFull` when even the last message alone is
        too long; the conversation is then as it was.
        """
        before, dropped = list(self.messages), self.dropped
        self.messages.append({"role": "user", "content": text})
        try:
            prompt = self._fit(sampling)
        except BaseException:
            self.messages, self.dropped = before, dropped
            raise
        answer: list[str] = []
        try:
            for piece in self.model.generate_ids(prompt, sampling):
                answer.append(piece.text)
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": "".join(answer)})

    def _fit(self, sampling: Sampling) -> list[int]:
        """The prompt, with room for an answer; drops the oldest turns until it fits."""
        length = self.model.context_length
        room = min(sampling.max_tokens, length // 4)
        first = 1 if self.system is not None else 0
        while True:
            prompt = self.model.prompt(self.messages)
            if len(prompt) + room <= length:
                return prompt
            if len(self.messages) - first <= 1:
                if len(prompt) < length:
                    return prompt
                raise ContextFull(0, len(prompt), length)
            # A turn is a question and its answer; templates want a question first.
            del self.messages[first]
            self.dropped += 1
            while len(self.messages) - first > 1 and self.messages[first]["role"] != "user":
                del self.messages[first]

    def save(self, path: Path) -> None:
        """Write the conversation atomically, with the bundle it was held with."""
        record = {
            "edge_conversation": _VERSION,
            "bundle": self.model.bundle.name,
            "bundle_id": self.model.bundle.id,
            "messages": self.messages,
        }
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def load(self, path: Path) -> bool:
        """Go on with a saved conversation; false when it was held with another bundle.

        Raises `UsageError` when there is no such file, `InputError` when it is no conversation.
        """
        if not path.is_file():
            raise UsageError(f"there is no saved conversation {path}")
        record = _read(path)
        self.messages = record["messages"]
        self.dropped = 0
        return bool(record.get("bundle_id") == self.model.bundle.id)


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than a conversation can be")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is no saved conversation: {err}") from err
    if not isinstance(record, dict) or record.get("edge_conversation") != _VERSION:
        raise InputError(f"{path} is no saved conversation of this edge")
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(_is_message(m) for m in messages):
        raise InputError(f"{path} is damaged: its messages are not messages")
    return record


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and message.get("role") in _ROLES
        and isinstance(message.get("content"), str)
        and set(message) == {"role", "content"}
    )
