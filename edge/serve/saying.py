"""Answers as OpenAI's clients read them: whole, or as a stream of chunks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.runtimes.model import Stats
from edge.runtimes.tool_calls import ToolCall
from edge.serve.asking import Wanted
from edge.serve.refusal import Refusal
from edge.serve.shaping import Odds
from edge.serve.turns import Answer, End, Said

DONE = b"data: [DONE]\n\n"


@dataclass
class Speech:
    """One answer on its way out. `chat` is `/v1/chat/completions`, else `/v1/completions`."""

    wanted: Wanted
    model: str
    chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)

    async def whole(self, answer: Answer) -> dict[str, Any]:
        """The response's object, when the answer has ended. Raises the `Refusal` that ended it instead."""
        texts: list[str] = []
        odds: list[Odds] = []
        while not isinstance(event := await answer.events.get(), End):
            if isinstance(event, Refusal):
                raise event
            texts.append(event.text)
            odds += event.odds
        text = "".join(texts)
        if self.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if event.calls:
                message |= {"content": text or None, "tool_calls": _calls(event.calls)}
            choice: dict[str, Any] = {"index": 0, "message": message}
        else:
            choice = {"index": 0, "text": answer.echo + text}
        choice |= {"logprobs": self._odds(odds), "finish_reason": event.reason}
        return self._object(choices=[choice], usage=usage(event.stats), chunk=False)

    async def stream(self, answer: Answer) -> AsyncIterator[bytes]:
        """Server-sent events, up to the one that says that it is done, or why it is not."""
        begun = False
        while not isinstance(event := await answer.events.get(), End):
            if isinstance(event, Refusal):
                yield _event(event.body)
                return
            yield self._piece(event, first=not begun, answer=answer)
            begun = True
        if not begun:
            yield self._piece(Said(""), first=True, answer=answer)
        if event.calls:
            calls = [{"index": i, **call} for i, call in enumerate(_calls(event.calls))]
            yield self._chunk({"index": 0, "delta": {"tool_calls": calls}, "logprobs": None, "finish_reason": None})
        last: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        yield self._chunk({"index": 0, **last, "logprobs": None, "finish_reason": event.reason})
        if self.wanted.stream_usage:
            yield _event(self._object(choices=[], usage=usage(event.stats), chunk=True))
        yield DONE

    def _piece(self, said: Said, *, first: bool, answer: Answer) -> bytes:
        if self.chat:
            delta = {"content": said.text}
            body: dict[str, Any] = {"delta": {"role": "assistant", **delta} if first else delta}
        else:
            body = {"text": (answer.echo if first else "") + said.text}
        return self._chunk({"index": 0, **body, "logprobs": self._odds(said.odds), "finish_reason": None})

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        # With usage wanted at the end, every other chunk says that it has none.
        more = {"usage": None} if self.wanted.stream_usage else {}
        return _event(self._object(choices=[choice], chunk=True, **more))

    def _object(self, *, chunk: bool, **rest: Any) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, **rest}

    def _odds(self, odds: Sequence[Odds]) -> dict[str, Any] | None:
        if self.wanted.top_logprobs is None or not odds:
            return None
        if not self.chat:
            return {
                "tokens": [o.text for o in odds],
                "token_logprobs": [o.logprob for o in odds],
                "top_logprobs": [dict(o.top) for o in odds],
                "text_offset": [],
            }

        def one(text: str, logprob: float) -> dict[str, Any]:
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        content = [{**one(o.text, o.logprob), "top_logprobs": [one(*t) for t in o.top]} for o in odds]
        return {"content": content, "refusal": None}


def usage(stats: Stats) -> dict[str, Any]:
    """Tokens of a request and its answer; those of the prompt that did not have to be read are "cached"."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.new_tokens,
        "total_tokens": stats.prompt_tokens + stats.new_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.reused_tokens},
    }


def _calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in calls
    ]


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
