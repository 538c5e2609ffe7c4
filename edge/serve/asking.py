"""What a client asks for: a request's JSON to frozen values, with every field checked.

Fields that change nothing here (`user`, `store`, `metadata`, ...) are taken and ignored, as OpenAI's own
clients send them; fields that ask for what is not done (`n` above 1, audio) are refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.serve.refusal import Refusal

MAX_STOPS = 16
MAX_PICTURES = 16
MAX_TOP_LOGPROBS = 20
MAX_INPUTS = 2048  # texts in one request for embeddings, as OpenAI has it
MAX_FORM_CHARACTERS = 1 << 18  # of a schema, or of all tools: a form is made before anybody else's prompt
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Wanted:
    """One answer, as it was asked for.

    `prompt` is the text or the ids to continue, of `/v1/completions`; else there are `messages`, as chat
    templates take them. `drawn` are the fields of `Sampling` that were given. `top_logprobs` is None when
    no probabilities are wanted. `schema` is what the answer must be: a JSON Schema, `True` for any JSON
    object, None for free text. `must_call` is the name of the tool that has to be called, "" for any of them.
    `strict` is set when a tool is: what is called is then called as its schema says, if anything is.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    must_call: str | None = None
    strict: bool = False
    schema: Mapping[str, Any] | bool | None = None
    drawn: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    stream: bool = False
    stream_usage: bool = False
    echo: bool = False
    user: str = ""


@dataclass(frozen=True)
class WantedVectors:
    """Vectors, as they were asked for: of each of the `inputs`, a text or its ids, the first `dimensions` numbers."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    base64: bool = False
    user: str = ""


def parse(body: bytes) -> Mapping[str, Any]:
    """The JSON object of a request."""
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        # Halves of characters, which JSON can spell and no text can hold.
        if b"\\u" in body:
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as err:
        raise Refusal(400, f"the request's body is not sound JSON: {str(err)[:200]}") from None
    if not isinstance(data, dict):
        raise Refusal(400, f"the request's body must be a JSON object, not {_kind(data)}")
    return data


def chat(data: Mapping[str, Any]) -> Wanted:
    """What a request to `/v1/chat/completions` asks for."""
    messages = _given(data, "messages", list)
    if not messages:
        raise Refusal(400, "messages must be a list of at least one message", param="messages")
    clean = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(messages))
    pictures = sum(
        isinstance(m["content"], list) and sum(p["type"] == "image_url" for p in m["content"]) for m in clean
    )
    if pictures > MAX_PICTURES:
        raise Refusal(400, f"at most {MAX_PICTURES} pictures fit in a request; it has {pictures}", param="messages")
    if _given(data, "modalities", list) not in (None, [], ["text"]) or data.get("audio") is not None:
        raise Refusal(400, "answers are text alone", param="modalities")
    tools, must_call = _tools(data)
    top = _number(data, "top_logprobs", 0, MAX_TOP_LOGPROBS, whole=True)
    wants = _given(data, "logprobs", bool) or False
    if top is not None and not wants:
        raise Refusal(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    return Wanted(
        messages=clean,
        tools=tools,
        must_call=must_call,
        strict=bool(tools) and _strict(data),
        schema=_format(data),
        top_logprobs=int(top or 0) if wants else None,
        **_common(data),
    )


def completion(data: Mapping[str, Any]) -> Wanted:
    """What a request to `/v1/completions` asks for: one text, or one list of ids, to be continued."""
    prompt = data.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if not isinstance(prompt, str) and not (_is_ids(prompt) and prompt):
        raise Refusal(400, "prompt must be one text, or one list of token ids", param="prompt")
    if data.get("suffix"):
        raise Refusal(400, "suffix is not supported: a text is continued, not filled in", param="suffix")
    if _number(data, "best_of", 1, 1, whole=True) not in (None, 1):
        raise Refusal(400, "best_of must be 1", param="best_of")
    top = _number(data, "logprobs", 0, MAX_TOP_LOGPROBS, whole=True)
    return Wanted(
        prompt=tuple(prompt) if isinstance(prompt, list) else prompt,
        top_logprobs=None if top is None else int(top),
        echo=_given(data, "echo", bool) or False,
        **_common(data),
    )


def embedding(data: Mapping[str, Any]) -> WantedVectors:
    """What a request to `/v1/embeddings` asks for: a text, a list of token ids, or a list of either."""
    given = data.get("input")
    inputs: list[Any] = given if isinstance(given, list) and not _is_ids(given) else [given]
    if given == [] or not all(isinstance(i, str) or _is_ids(i) for i in inputs):
        raise Refusal(400, "input must be a text, a list of token ids, or a list of either", param="input")
    if "" in inputs or [] in inputs:
        raise Refusal(400, "input must not be empty", param="input")
    if len(inputs) > MAX_INPUTS:
        raise Refusal(400, f"at most {MAX_INPUTS} texts fit in a request; it has {len(inputs)}", param="input")
    encoding = data.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise Refusal(400, "encoding_format must be float or base64", param="encoding_format")
    dimensions = _number(data, "dimensions", 1, 1 << 20, whole=True)
    return WantedVectors(
        model=_model(data),
        inputs=tuple(i if isinstance(i, str) else tuple(i) for i in inputs),
        dimensions=None if dimensions is None else int(dimensions),
        base64=encoding == "base64",
        user=_user(data),
    )


def _is_ids(value: Any) -> bool:
    """Whether it is a list of whole numbers; one of nothing is."""
    return isinstance(value, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in value)


def _model(data: Mapping[str, Any]) -> str:
    model = data.get("model", "")
    if not isinstance(model, str):
        raise Refusal(400, f"model must be a text, not {_kind(model)}", param="model")
    return model


def _user(data: Mapping[str, Any]) -> str:
    return str(data.get("user") or data.get("safety_identifier") or "")[:200]


def _common(data: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {
        ours: value
        for ours, low, high in (
            ("temperature", 0, 100), ("top_p", 0, 1), ("min_p", 0, 1), ("top_k", -1, 1 << 20), ("repeat_penalty", 0, 10)
        )
        if (value := _number(data, ours, low, high, whole=ours == "top_k")) is not None
    }  # fmt: skip
    if drawn.get("top_p") == 0:  # the likeliest alone
        drawn |= {"top_p": 1.0, "temperature": 0.0}
    if drawn.get("top_k", 0) < 0:
        drawn["top_k"] = 0
    if drawn.get("min_p") == 1:
        raise Refusal(400, "min_p must be below 1", param="min_p")
    if drawn.get("repeat_penalty") == 0:
        raise Refusal(400, "repeat_penalty must be above 0", param="repeat_penalty")
    seed = _number(data, "seed", -(1 << 63), 1 << 64, whole=True)
    if seed is not None:
        drawn["seed"] = int(seed) % (1 << 63)
    _number(data, "n", 1, 1, whole=True)
    given = [
        int(n)
        for name in ("max_completion_tokens", "max_tokens")
        if (n := _number(data, name, 0, 1 << 31, whole=True)) is not None
    ]
    options = _given(data, "stream_options", dict) or {}
    stream = _given(data, "stream", bool) or False
    return {
        "model": _model(data),
        "drawn": drawn,
        "max_tokens": given[0] if given else None,
        "stop": _stops(data),
        "frequency_penalty": float(_number(data, "frequency_penalty", -2, 2) or 0),
        "presence_penalty": float(_number(data, "presence_penalty", -2, 2) or 0),
        "logit_bias": _bias(data),
        "stream": stream,
        "stream_usage": stream and bool(options.get("include_usage")),
        "user": _user(data),
    }


def _message(message: Any, where: str) -> dict[str, Any]:
    """A message as chat templates know it: nothing of it but what is known by name."""
    if not isinstance(message, dict):
        raise Refusal(400, f"{where} must be an object, not {_kind(message)}", param=where)
    role = message.get("role")
    if role not in _ROLES:
        raise Refusal(400, f"{where}.role must be one of {', '.join(_ROLES)}; found {str(role)[:40]!r}", param=where)
    content = message.get("content")
    clean: dict[str, Any] = {"role": "system" if role == "developer" else role}
    if isinstance(content, list):
        parts = [_part(p, f"{where}.content[{i}]") for i, p in enumerate(content)]
        # Words alone are one text: nearly every template takes that.
        words = all(p["type"] == "text" for p in parts)
        clean["content"] = "".join(p["text"] for p in parts) if words else parts
    elif content is None and role in ("assistant", "tool"):
        clean["content"] = ""
    elif isinstance(content, str):
        clean["content"] = content
    else:
        raise Refusal(400, f"{where}.content must be a text or a list of parts, not {_kind(content)}", param=where)
    if role == "assistant" and message.get("tool_calls") is not None:
        clean["tool_calls"] = [_call(c, f"{where}.tool_calls[{i}]") for i, c in enumerate(_list(message, "tool_calls"))]
    if role == "tool":
        for key in ("tool_call_id", "name"):
            if isinstance(message.get(key), str):
                clean[key] = message[key]
    return clean


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "input_text") and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind in ("image_url", "input_image"):
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        # Never a path or an address: nobody may look at this machine's files, or send it out into the net.
        if not isinstance(url, str) or not url.startswith("data:image/"):
            raise Refusal(
                400,
                f"{where} must be data:image/...;base64,...: no picture is fetched from a file or an address",
                param=where,
            )
        return {"type": "image_url", "image_url": {"url": url}}
    raise Refusal(400, f"{where} is of the kind {str(kind)[:40]!r}; there are text and image_url", param=where)


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refusal(400, f"{where} must be a function call with a name", param=where)
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        # Templates write arguments as JSON themselves, and would quote a text once more.
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise Refusal(400, f"{where}.function.arguments is not sound JSON", param=where) from None
    if not isinstance(arguments, dict):
        raise Refusal(400, f"{where}.function.arguments must be an object", param=where)
    made: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made


def _tools(data: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any], ...], str | None]:
    """The tools, and which must be called: None when none must."""
    tools: list[Mapping[str, Any]] = []
    names: list[str] = []
    for i, tool in enumerate(_given(data, "tools", list) or []):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise Refusal(400, f"tools[{i}] must be a function with a name", param=f"tools[{i}]")
        if not isinstance(function.get("parameters", {}), dict):
            raise Refusal(400, f"tools[{i}].function.parameters must be a JSON Schema", param=f"tools[{i}]")
        kept = {k: v for k, v in function.items() if k in ("name", "description", "parameters")}
        tools.append({"type": "function", "function": kept})
        names.append(kept["name"])
    _small(tools, "tools")
    choice = data.get("tool_choice")
    if len(set(names)) != len(names):
        raise Refusal(400, "two tools have the same name", param="tools")
    if choice in (None, "auto"):
        return tuple(tools), None
    if choice == "none":
        return (), None
    if choice == "required" and tools:
        return tuple(tools), ""
    wanted = choice.get("function") if isinstance(choice, dict) else None
    name = wanted.get("name") if isinstance(wanted, dict) else None
    if name not in names:
        raise Refusal(400, "tool_choice must be none, auto, required, or name one of the tools", param="tool_choice")
    return tuple(tools), name


def _strict(data: Mapping[str, Any]) -> bool:
    """Whether any of the tools, which are sound, must be called as its schema says."""
    return any(_given(tool["function"], "strict", bool) for tool in data["tools"])


def _format(data: Mapping[str, Any]) -> Mapping[str, Any] | bool | None:
    wanted = _given(data, "response_format", dict)
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return True
    held = (wanted or {}).get("json_schema")
    schema = held.get("schema") if isinstance(held, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise Refusal(
            400, "response_format must be text, json_object, or json_schema with a schema", param="response_format"
        )
    _small(schema, "response_format")
    return schema


def _small(form: Any, param: str) -> None:
    try:
        size = len(json.dumps(form))
    except RecursionError:
        raise Refusal(400, f"{param} is nested too deeply", param=param) from None
    if size > MAX_FORM_CHARACTERS:
        words = f"{param} has {size} characters as JSON; at most {MAX_FORM_CHARACTERS} can be held"
        raise Refusal(400, words, param=param)


def _stops(data: Mapping[str, Any]) -> tuple[str, ...]:
    stop = data.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) for s in stops):
        raise Refusal(400, f"stop must be a text, or up to {MAX_STOPS} of them", param="stop")
    if any(len(s) > 1000 for s in stops):
        raise Refusal(400, "a stop text has at most 1,000 characters", param="stop")
    return tuple(s for s in stops if s)


def _bias(data: Mapping[str, Any]) -> dict[int, float]:
    found: dict[int, float] = {}
    for key, value in (_given(data, "logit_bias", dict) or {}).items():
        sound = key.isascii() and key.isdigit() and len(key) < 10 and isinstance(value, (int, float))
        if not sound or not -100 <= value <= 100:
            raise Refusal(400, "logit_bias must give token ids numbers from -100 to 100", param="logit_bias")
        found[int(key)] = float(value)
    return found


def _given(data: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field, or None; `Refusal` when it is of another kind."""
    value = data.get(name)
    if value is not None and not isinstance(value, kind):
        words = {list: "a list", dict: "an object", bool: "true or false"}[kind]
        raise Refusal(400, f"{name} must be {words}, not {_kind(value)}", param=name)
    return value


def _list(data: Mapping[str, Any], name: str) -> Sequence[Any]:
    found: Sequence[Any] = _given(data, name, list)
    return found


def _number(data: Mapping[str, Any], name: str, low: float, high: float, *, whole: bool = False) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    # A whole number of any size can be compared, and not always be made a float.
    endless = isinstance(value, float) and not math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or endless:
        raise Refusal(400, f"{name} must be a number, not {_kind(value)}", param=name)
    if whole and value != int(value):
        raise Refusal(400, f"{name} must be a whole number", param=name)
    if not low <= value <= high:
        words = f"{name} must be {low}" if low == high else f"{name} must be from {low} to {high}"
        raise Refusal(400, words, param=name)
    return int(value) if whole else float(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
