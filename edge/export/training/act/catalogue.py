"""Tools and what people say to them, read from `tools/*.txt`.

    set_timer | (Start a countdown timer|Count down a number of minutes).
      minutes integer | how many minutes | 1..90
      label? string | what it is for | @label
      > (set|start) a timer for {minutes} minutes[ for the {label}]     said in training
      < count {minutes} minutes down[ for the {label}]                  held out: never said in training
      ? (set|start) a timer[ for the {label}]                           something needed is missing

`(a|b)` is either, `[x]` may be left out, `{p}` is a value of the parameter p, and
`{p:open=true/close=false}` says a value in other words. A type is string, integer, number, boolean,
[string], or the values of an enumeration. Values come from a list, a range `1..90/5`, or a kind of
`values`. A phrase that names no parameter in a bracket leaves it out of the call.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edge.export.training.act.values import Values

_FOLDER = Path(__file__).parent / "tools"
_SLOT = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_GROUP = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool; `values` says where training takes its values from."""

    name: str
    type: str
    about: str
    required: bool
    values: str
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Its JSON Schema."""
        about = {"description": self.about} if self.about else {}
        if self.choices:
            return {"type": "string", "enum": list(self.choices), **about}
        if self.type == "array":
            return {"type": "array", "items": {"type": "string"}, **about}
        return {"type": self.type, **about}


@dataclass(frozen=True)
class Tool:
    """A function a model may call, with what people say when they want it."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    domain: str
    train: tuple[str, ...] = field(default=(), repr=False)
    held_out: tuple[str, ...] = field(default=(), repr=False)
    incomplete: tuple[str, ...] = field(default=(), repr=False)

    def schema(self, about: str | None = None) -> dict[str, Any]:
        """What chat templates take as one of `tools`: a function schema as OpenAI's interface defines it."""
        parameters = {
            "type": "object",
            "properties": {p.name: p.schema() for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
        }
        function = {"name": self.name, "description": about or self.about, "parameters": parameters}
        return {"type": "function", "function": function}


@cache
def taught() -> tuple[Tool, ...]:
    """The tools that training uses."""
    return tuple(t for path in sorted(_FOLDER.glob("*.txt")) if path.stem != "unseen" for t in _read(path))


@cache
def known() -> tuple[Tool, ...]:
    """Those of them that are taught most and that held-out cases ask for: they have phrases kept back."""
    return tuple(t for t in taught() if t.held_out)


@cache
def unseen() -> tuple[Tool, ...]:
    """Tools whose names, descriptions and phrases training never sees."""
    return tuple(_read(_FOLDER / "unseen.txt"))


def say(phrase: str, tool: Tool, values: Values) -> tuple[str, dict[str, Any]]:
    """One way to say `phrase`, and the arguments it gives, in the order of the tool's parameters."""
    wording = _choose(phrase, values.rng)
    if not values.held_out:
        wording = _reworded(wording, tool, values.rng)
    given: dict[str, Any] = {}
    parameters = {p.name: p for p in tool.parameters}

    def fill(slot: re.Match[str]) -> str:
        text, given[slot[1]] = _value(parameters[slot[1]], slot[2], values)
        return text

    while True:
        text = re.sub(r"\s+", " ", _SLOT.sub(fill, wording)).strip()
        words = [v for v in given.values() if isinstance(v, str)]
        if len(set(words)) == len(words):  # nobody goes from Rome to Rome
            break
    return text, {p.name: given[p.name] for p in tool.parameters if p.name in given}


# How training says the same frame in other words.
_FRAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("I want to ", ("I would like to ", "I'd like to ", "I wish to ", "I have to ")),
    ("I need to ", ("I have to ", "I must ", "I'd like to ")),
    ("I want ", ("I would like ", "I'd like ", "I need ", "we want ", "I would love ")),
    ("I need ", ("I want ", "we need ", "I'd like ")),
    (" should be ", (" must be ", " needs to be ", " has to be ", " ought to be ")),
    (" must be ", (" should be ", " needs to be ", " is to be ")),
    ("do not ", ("don't ",)),
    ("what is ", ("what's ", "tell me what is ")),
    ("tell me ", ("let me know ", "say ", "can you tell me ")),
    ("show me ", ("let me see ", "display ")),
    ("please ", ("kindly ", "")),
)


def _reworded(wording: str, tool: Tool, rng: random.Random) -> str:
    """The wording with other frames, unless that makes it one that is kept back."""
    said = wording
    for frame, others in _FRAMES:
        if frame in said and rng.random() < 0.4:
            said = said.replace(frame, rng.choice(others), 1)
    return wording if _bare(said) in _kept_back(tool) else said


@cache
def _kept_back(tool: Tool) -> frozenset[str]:
    """The held-out wordings of a tool, their values left open, without courtesies and punctuation."""
    found = set(tool.held_out)
    while any(set(p) & set("([") for p in found):
        found = {option for p in found for option in _options(p)}
    return frozenset(_bare(p) for p in found)


def _options(phrase: str) -> list[str]:
    """The phrase with its innermost group resolved in every way."""
    group = _GROUP.search(phrase)
    if group is None:
        return [phrase]
    ways = ["", group[2]] if group[1] is None else group[1].split("|")
    return [phrase[: group.start()] + way + phrase[group.end() :] for way in ways]


def _bare(wording: str) -> str:
    bare = _SLOT.sub(r"{\1}", wording).replace("please", "")
    return re.sub(r"[\s,.:;?!]+", " ", bare).strip().lower()


def slots(phrase: str) -> frozenset[str]:
    """Names of the parameters that a phrase can mention."""
    return frozenset(m[1] for m in _SLOT.finditer(phrase))


def either(text: str, rng: random.Random) -> str:
    """One of the wordings of a description."""
    return _choose(text, rng)


def _choose(text: str, rng: random.Random) -> str:
    """Resolve `(a|b)` and `[x]`, innermost first; slots are left alone."""
    while True:
        group = _GROUP.search(text)
        if group is None:
            return text
        optional = group[1] is None
        chosen = ("" if rng.random() >= 0.5 else group[2]) if optional else rng.choice(group[1].split("|"))
        text = text[: group.start()] + chosen + text[group.end() :]


def _value(parameter: Parameter, wording: str | None, values: Values) -> tuple[str, Any]:
    """How a value is said, and what it is in JSON."""
    rng = values.rng
    if wording:
        said, _, meant = rng.choice(wording.split("/")).partition("=")
        return said, json.loads(meant) if parameter.type == "boolean" else meant
    if parameter.choices:
        chosen = rng.choice(parameter.choices)
        return chosen, chosen
    source = parameter.values
    if source.startswith("@"):
        text = values.draw(source[1:])
    elif ".." in source:
        text = _in_range(source, rng)
    else:
        text = rng.choice(source.split(", " if ", " in source else ","))
    if parameter.type == "array":
        items = text.split(", ")
        return _listed(items), items
    return text, json.loads(text) if parameter.type in ("integer", "number") else text


def _in_range(source: str, rng: random.Random) -> str:
    limits, _, step = source.partition("/")
    low, high = (float(x) for x in limits.split(".."))
    width = float(step or 1)
    number = low + width * rng.randrange(round((high - low) / width) + 1)
    return f"{number:.10g}" if number != int(number) else str(int(number))


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _read(path: Path) -> Iterator[Tool]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        head, *lines = [line for line in block.splitlines() if line.strip()]
        name, _, about = (part.strip() for part in head.partition("|"))
        phrases: Mapping[str, list[str]] = {">": [], "<": [], "?": []}
        parameters = []
        for line in (line.strip() for line in lines):
            if line[0] in phrases:
                phrases[line[0]].append(line[1:].strip())
            else:
                parameters.append(_parameter(line))
        yield Tool(
            name, about, tuple(parameters), path.stem, tuple(phrases[">"]), tuple(phrases["<"]), tuple(phrases["?"])
        )


def _parameter(line: str) -> Parameter:
    declared, rest = line.split(" | ", 1) if " | " in line else (line, "")
    name, kind = declared.split(" ", 1)
    about, _, values = (part.strip() for part in rest.rpartition("|")) if "|" in rest else (rest.strip(), "", "")
    required = not name.endswith("?")
    if "|" in kind:
        return Parameter(name.rstrip("?"), "string", about, required, "", tuple(kind.split("|")))
    return Parameter(name.rstrip("?"), "array" if kind == "[string]" else kind, about, required, values)
