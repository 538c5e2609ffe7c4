"""A known tool under another name: what it is called says nothing, its description does.

A model that has seen `set_light` under a hundred names learns to read the manifest, and copes with
tools it never saw.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from edge.export.training.act.catalogue import Tool, either
from edge.export.training.act.values import Values

_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "to",
        "in",
        "on",
        "at",
        "for",
        "is",
        "it",
        "what",
        "which",
        "who",
        "how",
        "much",
        "many",
        "from",
        "with",
        "by",
        "or",
        "and",
        "be",
        "as",
    ]
)
_GENERIC = {
    "string": ("value", "text", "target", "input", "name", "item", "query", "object", "content", "label"),
    "integer": ("amount", "count", "n", "number", "value", "quantity", "level", "size"),
    "number": ("amount", "value", "number", "quantity", "x", "level"),
    "boolean": ("flag", "enabled", "on", "active"),
    "array": ("items", "values", "entries", "elements"),
}
_BEFORE = ("do", "run", "api", "my", "home", "app", "svc", "user", "exec", "request", "handle", "smart", "device")
_AFTER = ("now", "v2", "tool", "action", "command", "service", "function", "it")


@dataclass(frozen=True)
class Offered:
    """A tool as one manifest shows it; `names` maps the parameter names of `tool` to those shown."""

    tool: Tool
    shown: Tool
    names: dict[str, str]


def plain(tool: Tool, rng: random.Random) -> Offered:
    """The tool as it is, one of its descriptions chosen."""
    shown = replace(tool, about=_sentence(either(tool.about, rng)))
    return Offered(tool, shown, {p.name: p.name for p in tool.parameters})


def disguised(tool: Tool, rng: random.Random) -> Offered:
    """The tool under another name, with other parameter names, in another order."""
    style = rng.choice(_STYLES)
    opaque = rng.random() < 0.15
    about = _sentence(either(tool.about, rng))
    names: dict[str, str] = {}
    parameters = []
    for p in tool.parameters:
        for _ in range(20):
            name = style(_opaque_words(rng) if opaque else _parameter_words(p.name, p.about, p.type, rng))
            if name not in names.values():
                break
        else:
            name = f"{p.name}_{len(names)}"
        names[p.name] = name
        parameters.append(replace(p, name=name))
    if rng.random() < 0.4:
        rng.shuffle(parameters)
    words = _opaque_words(rng) if opaque else _function_words(tool.name, about, rng)
    return Offered(tool, replace(tool, name=style(words), about=about, parameters=tuple(parameters)), names)


def _function_words(name: str, about: str, rng: random.Random) -> list[str]:
    words = name.split("_")
    kind = rng.randrange(5)
    if kind == 0:
        return words[::-1]
    if kind == 1:
        return [rng.choice(_BEFORE), *words]
    if kind == 2:
        return [*words, rng.choice(_AFTER)]
    if kind == 3:
        said = [w for w in _plain_words(about) if w not in _STOP]
        return said[: rng.randrange(2, 4)] or words
    return words


def _parameter_words(name: str, about: str, kind: str, rng: random.Random) -> list[str]:
    choice = rng.randrange(5)
    if choice == 0:
        return [rng.choice(_GENERIC[kind])]
    if choice == 1 and (said := [w for w in _plain_words(about) if w not in _STOP]):
        return said[-rng.randrange(1, 3) :]
    if choice == 2:
        return [*name.split("_"), rng.choice(("value", "arg", "name", "param", "1"))]
    return name.split("_")


def _opaque_words(rng: random.Random) -> list[str]:
    values = Values(rng)
    return rng.choice([
        [values.draw("nonsense")], ["fn", values.digits(2)], [rng.choice("abpqxyz") + values.digits(1)],
        [values.draw("nonsense"), values.draw("nonsense")], ["tool", values.digits(1)], [values.draw("nonsense")],
    ])  # fmt: skip


def _plain_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _sentence(about: str) -> str:
    return about.rstrip(".") + "."


def _snake(words: list[str]) -> str:
    return "_".join(words)


def _camel(words: list[str]) -> str:
    return words[0] + "".join(w.capitalize() for w in words[1:])


def _kebab(words: list[str]) -> str:
    return "-".join(words)


def _pascal(words: list[str]) -> str:
    return "".join(w.capitalize() for w in words)


_STYLES = (_snake, _snake, _snake, _camel, _camel, _kebab, _pascal)
