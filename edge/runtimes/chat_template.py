"""Chat templates, rendered as `transformers` renders them, in a sandbox that holds hostile ones.

A template comes with a model, so it is somebody else's program. It may look at the messages
and make text; it may not reach Python, loop for long or fill the memory.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from edge.errors import InputError, UsageError

MAX_STEPS = 200_000  # executed lines of the compiled template; a long chat takes some thousands
MAX_TEXT = 4 << 20  # characters and items of any one value the template makes, and of the result
MAX_TIME_S = 5.0  # rendering takes milliseconds; only a template that means harm gets here
_MAX_TEMPLATE = 1 << 20
_MAX_POWER = 1 << 16
_WIDTH = re.compile(r"\d{5,}")
# Methods of str that can make a long text out of a short one; their numbers and results are bounded.
_GROWING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "replace", "join", "format", "format_map"})


class _Refused(Exception):
    """Raised inside a template that goes too far; never leaves this module."""


class ChatTemplate:
    """A conversation's messages to the text that the model was trained on."""

    def __init__(
        self, source: str, variables: Mapping[str, Any] | None = None, *, where: str = "chat template"
    ) -> None:
        """Compile `source`; `variables` are the special tokens it may name. `InputError` when it is no template."""
        import jinja2

        if len(source) > _MAX_TEMPLATE:
            raise InputError(f"{where} is longer than a template can be: {len(source):,} characters")
        self.source = source
        self.where = where
        self._variables = dict(variables or {})
        try:
            self._compiled = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError, OverflowError, ValueError) as err:
            raise InputError(f"{where} does not compile: {_first_line(err)}") from None

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The folder's template, or `None`: `chat_template.jinja`, else the one in `tokenizer_config.json`."""
        from edge.runtimes.tokenizer import read_config

        config = read_config(Path(folder) / "tokenizer_config.json")
        path = Path(folder) / "chat_template.jinja"
        if path.is_file():
            if path.stat().st_size > _MAX_TEMPLATE:
                raise InputError(f"{path} is longer than a template can be: {path.stat().st_size:,} bytes")
            try:
                source: Any = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as err:
                raise InputError(f"{path} is not UTF-8 text: {err}") from err
        else:
            source = config.get("chat_template")
            if isinstance(source, list):
                named = {t.get("name"): t.get("template") for t in source if isinstance(t, Mapping)}
                source = named.get("default")
        if not isinstance(source, str):
            return None
        return cls(source, _special_tokens(config), where=str(path if path.is_file() else folder))

    @property
    def sha256(self) -> str:
        """Hash of the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text, special tokens spelled out.

        Raises `UsageError` when the template itself refuses the messages, `InputError` when it
        fails, loops, or reaches for what is not its business.

        >>> ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}").render(
        ...     [{"role": "user", "content": "hi"}]
        ... )
        '<user>hi'
        """
        variables = {
            **self._variables,
            "messages": [dict(m) for m in messages],
            "tools": None if tools is None else [dict(t) for t in tools],
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces: list[str] = []
        size = 0
        try:
            with _step_limit():
                for piece in self._compiled.generate(variables):
                    size += len(piece)
                    if size > MAX_TEXT:
                        raise _Refused(f"it makes more than {MAX_TEXT:,} characters")
                    pieces.append(piece)
        except _Said as err:
            raise UsageError(f"the chat template refuses this conversation: {err}") from None
        except _Refused as err:
            raise InputError(f"{self.where} was stopped: {err}", hint="use a template you trust") from None
        except Exception as err:  # noqa: BLE001
            # Whatever a template does wrong, it is the template's fault, and one line says so.
            raise InputError(f"{self.where} fails: {type(err).__name__}: {_first_line(err)}") from None
        return "".join(pieces)


class _Said(Exception):
    """`raise_exception` called by a template: a message for the user."""


def _environment() -> Any:
    """As `transformers` sets Jinja up, and narrower where a template could take the machine down."""
    import jinja2.sandbox
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.visitor import NodeTransformer

    class Generation(Extension):
        """`{% generation %}` marks the assistant's text for training; here it is just its content."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "+", "%"})
        concat = staticmethod(_concat)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return not attr.startswith("_") and super().is_safe_attribute(obj, attr, value)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operands(operator, left, right)
            return _bounded(super().call_binop(context, operator, left, right))

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            _check_call(obj, args, kwargs)
            return _bounded(super().call(context, obj, *args, **kwargs))

        def _generate(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._generate(_Watched().visit(source), *args, **kwargs)

    class _Watched(NodeTransformer):
        """Literals and `~` go through a filter too, so that no value is made unseen."""

        def _made(self, node: Any, *args: Any, **kwargs: Any) -> Any:
            self.generic_visit(node)
            # The target of an assignment is no value.
            if getattr(node, "ctx", "load") != "load":
                return node
            return nodes.Filter(node, "_bounded", [], [], None, None, lineno=node.lineno)

        visit_List = visit_Tuple = visit_Dict = _made

        def visit_Concat(self, node: Any, *args: Any, **kwargs: Any) -> Any:
            self.generic_visit(node)
            parts = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(parts, "_concat", [], [], None, None, lineno=node.lineno)

    env = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = _strftime_now
    env.globals.pop("lipsum", None)
    env.filters = {name: _guarded(env.filters[name]) for name in _FILTERS}
    env.filters.update(tojson=_tojson, _bounded=_bounded, _concat=_concat)
    return env


# The filters that look at data or change text a little. What pads, repeats, generates or reaches
# attributes by computed names is left out, unless it is bounded above.
_FILTERS = (
    "abs", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby",
    "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum",
    "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose numbers and results are bounded; Jinja's own marks on it are kept."""
    import functools

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        texts = [a for a in (*args, *kwargs.values()) if isinstance(a, str)]
        numbers = [a for a in (*args, *kwargs.values()) if isinstance(a, int) and not isinstance(a, bool)]
        name = function.__name__
        if name in {"do_indent", "do_batch", "do_slice", "do_round"} and any(abs(n) > 1000 for n in numbers):
            raise _Refused(f"a number of {max(map(abs, numbers)):,} in a filter")
        if name in {"do_replace", "do_indent", "do_join", "sync_do_join"} and len(texts) > 1:
            _check_product(len(args[-2]) if isinstance(args[-2], str) else len(texts[0]), len(texts[-1]))
        if name in {"do_join", "sync_do_join"}:
            args = tuple(_listed(a) for a in args)
            _check_join(args, texts)
        return _bounded(function(*args, **kwargs))

    return run


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Iterator) else value


def _check_join(args: Sequence[Any], texts: Sequence[str]) -> None:
    for items in args:
        if isinstance(items, (list, tuple)) and texts:
            _check_product(len(items), len(texts[-1]) + 1)


def _check_product(a: int, b: int) -> None:
    if a * b > MAX_TEXT:
        raise _Refused(f"it makes a text of up to {a * b:,} characters")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse before computing what could not be held."""
    if operator == "**":
        small = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if not small or abs(left) > _MAX_POWER or abs(right) > 64:
            raise _Refused("a power of large numbers")
    elif operator == "*":
        for a, b in ((left, right), (right, left)):
            if isinstance(a, (str, list, tuple)) and isinstance(b, int):
                _check_product(len(a), b)
            if isinstance(a, int) and a.bit_length() > 4096:
                raise _Refused("a number of more than 4,096 bits")
    elif operator == "%" and isinstance(left, str) and (_WIDTH.search(left) or "*" in left):
        raise _Refused("a format with a width of more than four digits")


def _check_call(obj: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    obj = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
    name, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
    if obj is range and any(isinstance(a, int) and abs(a) > MAX_STEPS for a in args):
        raise _Refused("a range of more steps than are allowed")
    if not isinstance(owner, str) or name not in _GROWING:
        return
    if any(isinstance(a, int) and a > 10_000 for a in (*args, *kwargs.values())):
        raise _Refused(f"a width of more than 10,000 in {name}")
    if name in {"format", "format_map"} and _WIDTH.search(owner):
        raise _Refused("a format with a width of more than four digits")
    if name == "replace" and len(args) > 1 and isinstance(args[1], str):
        _check_product(len(owner) + 1, len(args[1]) + 1)
    if name == "join" and args and isinstance(args[0], (list, tuple, str)):
        _check_product(len(args[0]), len(owner) + 1)


def _concat(parts: Iterable[Any]) -> str:
    """`"".join`, for `~`, blocks and macros, that stops before the text is too long."""
    size, texts = 0, []
    for part in parts:
        text = str(_bounded(part))
        size += len(text)
        if size > MAX_TEXT:
            raise _Refused(f"it makes more than {MAX_TEXT:,} characters")
        texts.append(text)
    return "".join(texts)


def _bounded(value: Any) -> Any:
    """`value` itself, if writing it out would take at most `MAX_TEXT` characters.

    Lists that hold lists that hold each other twice are small in memory and endless on paper,
    so containers are walked; the walk ends at the limit.
    """
    if isinstance(value, int) and value.bit_length() > 4096:
        raise _Refused("a number of more than 4,096 bits")
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple)):
            size += len(one)
            if size <= MAX_TEXT:
                waiting += one
        size += 1
        if size > MAX_TEXT:
            raise _Refused(f"it makes more than {MAX_TEXT:,} characters or items")
    return value


@contextmanager
def _step_limit() -> Iterator[None]:
    """Count the lines that compiled templates execute in this thread; raise when there are too many.

    Jinja compiles each statement to its own line of Python in a file called `<template>`. Only
    frames of such files are counted, so the libraries underneath run at full speed.
    """
    steps = 0
    end_s = time.monotonic() + MAX_TIME_S

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps > MAX_STEPS:
            raise _Refused(f"it takes more than {MAX_STEPS:,} steps")
        if steps % 64 == 0 and time.monotonic() > end_s:
            raise _Refused(f"it takes more than {MAX_TIME_S:.0f} s")

    def count(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            step()
        return count

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        step()
        return count if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def _raise_exception(message: Any) -> None:
    raise _Said(str(message)[:500])


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(str(pattern)[:200])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja's own filter, as `transformers` writes it."""
    if indent is not None and not 0 <= indent <= 16:
        raise _Refused(f"an indent of {indent}")
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return str(_bounded(text))


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like by name, for templates that write them."""
    found = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def _first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:300]
