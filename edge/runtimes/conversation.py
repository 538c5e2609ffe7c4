"""A conversation with a model: who said what, what of it still fits, and its file.

conversation = Conversation(model, system="Answer in one sentence.")
for piece in conversation.say("What is the capital of France?"):
    print(piece.text, end="", flush=True)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError
from edge.runtimes.model import Model, Piece, Reading
from edge.runtimes.session import ContextFull, Sampling

# An answer gets at least this share of the context, if it may be that long.
_ANSWER_SHARE = 1 / 4
# When turns are dropped, so many are that what is left takes this share: dropping one at a time
# would mean to read nearly the whole conversation again before every answer.
_KEPT_SHARE = 1 / 2

_VERSION = 1
_LIMIT_BYTES = 16 << 20


class Conversation:
    """Turns of a user and an assistant, and one system prompt.

    `messages` is all that was said, without the system prompt. The model sees the system prompt
    and the messages from `first` on: when they no longer fit, the oldest turns are dropped from
    its sight, but stay in `messages`. `dropped` says how many turns the last answer cost.
    """

    def __init__(self, model: Model, *, system: str | None = None) -> None:
        self.model = model
        self.messages: list[dict[str, Any]] = []
        self.first = 0
        self.dropped = 0
        self._system: str | None = None
        self.system = system

    @property
    def system(self) -> str | None:
        """What the model is told before everything else; holds from the next answer on."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        """Raises `UsageError` when the model has no place for a system prompt."""
        if text:
            # A template that refuses it should do so now, not at the next question.
            self.model.prompt([_message("system", text), _message("user", "?")])
        self._system = text or None

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What the model sees of it."""
        system = [] if self._system is None else [_message("system", self._system)]
        return [*system, *self.messages[self.first :]]

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self.messages = []
        self.first = self.dropped = 0

    def say(
        self,
        text: str,
        sampling: Sampling | None = None,
        *,
        images: Sequence[str | Path] = (),
        reading: Reading | None = None,
    ) -> Iterator[Piece]:
        """Stream the answer to `text` about the pictures in the files `images`, and remember all of it.

        An answer that is stopped half-way (the iterator is closed, or `reading` raises) is
        remembered as far as it came. If it had not begun, the question is forgotten as well,
        for templates want turns to alternate. Raises `ContextFull` when `text` does not fit
        even alone, and what `Model.prompt` raises for a picture that it cannot see; nothing has
        changed then.
        """
        before = self.first
        self.messages.append(
            {"role": "user", "content": [*map(self._picture, images), _words(text)]}
            if images
            else _message("user", text)
        )
        said, ended = "", False
        try:
            prompt = self._fit(sampling or Sampling())
            for piece in self.model.generate_ids(prompt, sampling, reading=reading):
                said += piece.text
                yield piece
            ended = True
        finally:
            if ended or said:
                self.messages.append(_message("assistant", said))
            else:
                self.messages.pop()
                self.first = before

    def _picture(self, path: str | Path) -> dict[str, str]:
        """A picture as part of a message, by its path and what it shows."""
        if self.model.template is None:
            raise UsageError(f"{self.model.bundle.name} has no chat template, so it cannot be shown pictures")
        whole = str(Path(path).expanduser().absolute())
        return {"type": "image", "path": whole, "sha256": self.model.sight.look({"path": whole}).sha256}

    def _fit(self, sampling: Sampling) -> list[int]:
        """The prompt, after dropping as many of the oldest turns as it takes."""
        self.dropped = 0
        length = self.model.context_length
        if self.model.template is None:
            # There are no turns without a template: every text is continued for itself.
            self.first = len(self.messages) - 1
            prompt = self.model.prompt(self.messages[-1]["content"])
        else:
            prompt = self.model.prompt(self.seen)
            if len(prompt) + min(sampling.max_tokens, int(length * _ANSWER_SHARE)) > length:
                while len(prompt) > length * _KEPT_SHARE and self.first < len(self.messages) - 1:
                    self.first += 2
                    self.dropped += 1
                    prompt = self.model.prompt(self.seen)
        if len(prompt) >= length:
            raise ContextFull(0, len(prompt) + 1, length)
        return prompt

    def save(self, path: Path) -> None:
        """Write the conversation atomically, with the bundle it was held with."""
        system = [] if self._system is None else [_message("system", self._system)]
        record = {
            "edge_conversation": _VERSION,
            "bundle": self.model.bundle.name,
            "bundle_id": self.model.bundle.id,
            "messages": [*system, *self.messages],
        }
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def load(self, path: Path, *, any_bundle: bool = False) -> None:
        """Go on with a saved conversation, in the place of this one.

        Raises `UsageError` when there is no such file, or when it was held with another bundle
        (unless `any_bundle`), and `InputError` when it is no conversation.
        """
        record = _read(Path(path))
        if record["bundle_id"] != self.model.bundle.id and not any_bundle:
            raise UsageError(
                f"{path} was held with another bundle: {record['bundle']} ({record['bundle_id']}), "
                f"not {self.model.bundle.name} ({self.model.bundle.id})",
                hint="go on all the same with --any-bundle",
            )
        messages = record["messages"]
        system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
        self.system = system
        self.reset()
        self.messages = messages


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"there is no saved conversation {path}", hint="save one with --save FILE, or with /save FILE")
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than a conversation can be")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is no saved conversation: {err}") from err
    if not isinstance(record, dict) or record.get("edge_conversation") != _VERSION:
        raise InputError(f"{path} is no saved conversation, or one of another version of edge")
    messages = record.get("messages")
    texts = isinstance(record.get("bundle"), str) and isinstance(record.get("bundle_id"), str)
    if not texts or not isinstance(messages, list) or not _is_alternating(messages):
        raise InputError(f"{path} is damaged: its messages are no turns of user and assistant")
    return record


def _is_parts(content: Any) -> bool:
    """Pictures by path and hash, and words."""
    keys = {"image": {"type", "path", "sha256"}, "text": {"type", "text"}}
    return isinstance(content, list) and all(
        isinstance(part, dict)
        and set(part) == keys.get(str(part.get("type")))
        and all(isinstance(value, str) for value in part.values())
        for part in content
    )


def _is_alternating(messages: Sequence[Any]) -> bool:
    """A system prompt or none, then questions with their answers."""
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return False
        content = message["content"]
        if not isinstance(content, str) and not (message["role"] == "user" and _is_parts(content)):
            return False
    roles = [m["role"] for m in messages]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    return len(roles) % 2 == 0 and roles == ["user", "assistant"] * (len(roles) // 2)
