"""Tool calls as text: what a large action model writes, read and written in one place.

A call stands in `<tool_call>` tags with one JSON object, as Hermes, Qwen and SmolLM2 write it; a
text that is nothing but JSON with names, as Llama and Mistral write it, is read too. A model trained
by edge has two more forms: it names the arguments it still needs, or says that no tool fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NO_TOOL_FITS = "None of these tools can do that."
ASK = "Please tell me: "
_BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


# How a model writes calls: in tags, a list behind [TOOL_CALLS], or one object with "parameters".
Syntax = Literal["tags", "list", "object"]


@dataclass(frozen=True)
class ToolCall:
    """A function's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model's text means. `sound` is false when a block holds no call: broken JSON, or no name."""

    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    sound: bool = True

    @property
    def refuses(self) -> bool:
        """It said that no tool fits."""
        return not self.calls and self.text == NO_TOOL_FITS

    @property
    def asks_for(self) -> tuple[str, ...]:
        """The arguments it wants to be told."""
        if self.calls or not self.text.startswith(ASK):
            return ()
        return tuple(name.strip() for name in self.text[len(ASK) :].split(",") if name.strip())


def read(text: str) -> Answer:
    """The calls in a model's text, and what it says beside them.

    >>> read('<tool_call>{"name":"tv","arguments":{"state":"on"}}</tool_call>').calls
    (ToolCall(name='tv', arguments={'state': 'on'}),)
    >>> read("Please tell me: room").asks_for
    ('room',)
    """
    blocks = _BLOCK.findall(text)
    if not blocks and (bare := _bare(text)):
        return Answer(bare)
    made = [_call(_parsed(block)) for block in blocks]
    calls = tuple(call for call in made if call is not None)
    return Answer(calls, _BLOCK.sub("", text).strip(), sound=len(calls) == len(made))


def syntax_of(template: str) -> Syntax | None:
    """The syntax that a chat template shows its model; `None` when it shows no tools.

    >>> syntax_of("{% if tools %}<tool_call>{% endif %}")
    'tags'
    """
    if not re.search(r"\btools\b", template):
        return None
    if "<tool_call>" in template:
        return "tags"
    return "list" if "[TOOL_CALLS]" in template else "object" if '"parameters"' in template else "tags"


def write(calls: Sequence[ToolCall]) -> str:
    """The text of `calls`, compact and always the same: what models are trained on.

    >>> print(write([ToolCall("tv", {"state": "on"})]))
    <tool_call>
    {"name":"tv","arguments":{"state":"on"}}
    </tool_call>
    """
    return "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in calls)


def ask(names: Sequence[str]) -> str:
    """How a model asks for the arguments called `names`."""
    return ASK + ", ".join(names)


def _json(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str) -> Any:
    """What JSON says; None for what is none, and for what it can spell and nobody can pass on: NaN, half characters."""
    try:
        data = json.loads(text, parse_constant=_none_such)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except (ValueError, RecursionError):
        return None


def _none_such(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _bare(text: str) -> tuple[ToolCall, ...]:
    """The calls of a text that is one JSON object or list; none when it is anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return ()
    data = _parsed(text)
    made = [_call(item) for item in (data if isinstance(data, list) else [data])]
    return () if None in made else tuple(call for call in made if call is not None)


def _call(data: Any) -> ToolCall | None:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return None
    arguments = data.get("arguments", data.get("parameters", {}))
    return ToolCall(data["name"], arguments) if isinstance(arguments, dict) else None
