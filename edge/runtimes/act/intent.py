"""One wish and a list of tools to calls, a question back, or "none of these": the model, held by a grammar.

What it sees is the person's own words alone. Results of tools and words of files are never shown to it here, so that
they can neither choose a tool nor say what it is called with.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgeError, UsageError
from edge.runtimes import tool_calls
from edge.runtimes.act import amounts, candidates, clauses, moments, plan
from edge.runtimes.grammar import Grammars
from edge.runtimes.model import Model
from edge.runtimes.session import Sampling
from edge.runtimes.tool_calls import Syntax, ToolCall

SHOWN_AT_ONCE = 5  # tools; the models that edge trains learned on manifests of two to six
NEAR = 0.8  # of the best tool's weight: those that the first look is at
MOST_LOOKS = 8  # lists of tools that are shown for one wish


# No tool needs these.
_FILLING = "about also been do does down got had has have here into just kindly know let like need now onto our over"
_FILLING += " please say saying says so then there up us want we will your"
_KNOWN = clauses.VERBS | set(_FILLING.split())


class Stopped(EdgeError):
    """The person stopped it, while nothing was being done."""

    def __init__(self) -> None:
        super().__init__("stopped; nothing was done")


class OutOfBudget(EdgeError):
    """A request took more steps, tokens or time than it may."""


@dataclass
class Budget:
    """What one request may take. `spent` counts tokens that were written, `tick` raises when it is too much."""

    tokens: int = 2048
    seconds: float = 300.0
    spent: int = 0
    began: float = 0.0

    def tick(self) -> None:
        """Raises `OutOfBudget`."""
        self.began = self.began or time.monotonic()
        took = time.monotonic() - self.began
        if self.spent >= self.tokens:
            raise OutOfBudget(f"the request took {self.spent} tokens, which is all it may", hint="ask for less at once")
        if took >= self.seconds:
            raise OutOfBudget(f"the request took {took:.0f} s, which is all it may", hint="ask for less at once")


@dataclass(frozen=True)
class Meaning:
    """What a wish means: calls; or `missing` arguments of `tool`; or none, and then maybe what the model said.

    A call may lack required numbers (`lacks`), which nobody has said.
    """

    calls: tuple[ToolCall, ...] = ()
    tool: str = ""
    missing: tuple[str, ...] = ()
    said: str = ""


class Reader:
    """Reads wishes with one model and one list of tools.

    `copy` holds free text in arguments to words of the wish: right for models that were taught to copy.
    """

    def __init__(
        self,
        model: Model,
        functions: Sequence[Mapping[str, Any]],
        *,
        copy: bool | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises `UsageError` when the model's template shows no tools."""
        found = None if model.template is None else tool_calls.syntax_of(model.template.source)
        if found is None:
            raise UsageError(
                f"{model.bundle.name} cannot act: its chat template shows no tools",
                hint="export a model that was trained to call tools, such as: edge export smollm2-act",
            )
        self.syntax: Syntax = found
        self.model, self.functions = model, list(functions)
        self.taught = model.bundle.family == "lam"
        self.copy = self.taught if copy is None else copy
        self._stopped = stopped
        self._grammars = Grammars.of(model)
        self.by_name = {f["function"]["name"]: f["function"] for f in self.functions}

    def read(self, wish: str, budget: Budget, *, told: Sequence[str] = (), without: Sequence[str] = ()) -> Meaning:
        """What a wish means. `told` are question and answer in turn; tools of `without` are not offered."""
        offered = [f for f in self.functions if f["function"]["name"] not in without]
        if told:
            names = set(tool_calls.read(told[0]).asks_for)
            fitting = [f for f in offered if names <= _names(f)]
            offered = fitting or offered
        best = Meaning()
        for numbers in candidates.looks(wish, offered, SHOWN_AT_ONCE, near=NEAR)[:MOST_LOOKS]:
            shown = [offered[n] for n in numbers]
            found = self._look(wish, shown, told, budget)
            if found.missing and _says(wish, self.by_name[found.tool], found.missing):
                # It asks for what was said, as small models do: then it has to say it.
                only = [f for f in shown if f["function"]["name"] == found.tool]
                found = self._look(wish, only, told, budget, idle=False)
            if found.calls or found.missing:
                return self._whole(wish, found, offered, budget) if self.copy and not told else found
            best = best if best.said else found
        return best

    def _whole(self, wish: str, found: Meaning, offered: Sequence[Any], budget: Budget) -> Meaning:
        """`found`, or a call of another tool that has more use for the words of the wish.

        "Which notes mention wifi" lists no notes: nothing of that would be about wifi. "Note 1 can be deleted" makes
        no note say "deleted": a tool has that in its name.
        """
        if len(found.calls) != 1:
            return found
        function = self.by_name[found.calls[0].name]
        if plan.RESULT in wish and lacks(function, found.calls[0]):
            return found  # that is what the words are for
        kin = [offered[n]["function"] for n in candidates.kin(wish, offered, function["name"], near=NEAR)]
        left = _left(wish, function, found.calls[0], [function, *kin])
        fitting = [f for f in kin if _has_place(f, wish, left)][:SHOWN_AT_ONCE]
        if not left or not fitting:
            return found
        again = self._look(wish, [{"type": "function", "function": f} for f in fitting], (), budget)
        if len(again.calls) != 1:
            return found
        call = again.calls[0]
        better = _left(wish, self.by_name[call.name], call, [function, *kin]) < left
        return again if better and candidates.copies(_values(call), wish, function) else found

    def _look(self, wish: str, shown: list[Any], told: Sequence[str], budget: Budget, *, idle: bool = True) -> Meaning:
        budget.tick()
        # As the manifest has them, not by rank: so tools that were shown before are not computed again.
        ranked, shown = shown, sorted(shown, key=self.functions.index)
        wish = _inside(wish)
        messages = [{"role": "user", "content": wish}]
        for n, text in enumerate(told):
            messages.append({"role": "user" if n % 2 else "assistant", "content": text})
        sampling = Sampling(max_tokens=max(1, min(192, budget.tokens - budget.spent)))
        words = " ".join([wish, *told[1::2]]) if self.copy else ""
        replies = _replies(told)
        held = [_held(f["function"], words, replies) for f in shown] if self.copy else shown
        unsaid = {name for f, as_held in zip(shown, held, strict=True) for name in _required(f) - _required(as_held)}
        grammar = self._grammars.tools(
            held, self.syntax, idle=idle and self.taught, text=idle and not self.taught, words=words, asks=unsaid
        )
        text = ""
        for piece in self.model.generate(messages, sampling, mask=grammar.mask(sampling), tools=shown):
            text += piece.text
            budget.spent += piece.token_id is not None
            if self._stopped():
                raise Stopped
        answer = tool_calls.read(text)
        if names := answer.asks_for:
            return self._asking(names, ranked)
        calls = [self._dated(call, words) for call in answer.calls] if self.copy else answer.calls
        return Meaning(calls=_once(calls), said="" if answer.refuses else answer.text.strip())

    def _dated(self, call: ToolCall, words: str) -> ToolCall:
        """A call whose times of day have their days, which small models leave out; not those that it has elsewhere."""
        properties = self.by_name[call.name]["parameters"].get("properties", {})
        made = dict(call.arguments)
        for name, value in call.arguments.items():
            about = properties.get(name)
            free = isinstance(about, Mapping) and {"type"} <= about.keys() <= {"type", "description", "title"}
            if free and isinstance(value, str):
                dated = moments.with_day(value, words)
                others = " ".join(str(other).lower() for key, other in made.items() if key != name)
                made[name] = value if dated.split()[0].lower() in others.split() else dated
        return ToolCall(call.name, made)

    def _asking(self, names: Sequence[str], ranked: Sequence[Any]) -> Meaning:
        """The likeliest tool that needs all of `names`; nothing when none does."""
        for f in ranked:
            if set(names) <= set(f["function"]["parameters"].get("required", ())):
                return Meaning(tool=f["function"]["name"], missing=tuple(dict.fromkeys(names)))
        return Meaning()


def question(function: Mapping[str, Any], names: Sequence[str]) -> str:
    """How the program asks a person for arguments, in words of the manifest.

    >>> question({"name": "set_light", "parameters": {"properties": {"room": {"description": "which room"}}}}, ["room"])
    'set light: which room?'
    """
    asked = []
    for name in names:
        about = function["parameters"].get("properties", {}).get(name, {})
        words = (about.get("description") or name.replace("_", " ")).rstrip("?. ")
        if "enum" in about:
            words += f" ({', '.join(map(str, about['enum']))})"
        asked.append(words)
    return f"{re.sub(r'[_.-]', ' ', function['name'])}: {', and '.join(asked)}?"


def _says(wish: str, function: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether the wish has a value for each argument: one of those that it can have, a number, a word left over."""
    said = set(re.findall(r"\w+", wish.lower()))
    over = candidates.left_over(wish, function, clauses.VERBS)
    texts = 0
    for name in names:
        about = function["parameters"].get("properties", {}).get(name, {})
        if "enum" in about:
            if said.isdisjoint(str(value).lower() for value in about["enum"]):
                return False
        elif (number := amounts.number(about)) is not None:
            if not amounts.values(wish, name, number):
                return False
        else:
            texts += 1
    # Words that could be two values are no two values.
    return texts == 0 or (texts == 1 and bool(over))


def _left(wish: str, function: Mapping[str, Any], call: ToolCall, others: Sequence[Mapping[str, Any]]) -> set[str]:
    """Words of the wish that a call of the tool has no use for, or takes as values although `others` are named so."""
    has_number = any(isinstance(value, (int, float)) for value in call.arguments.values())
    counted = amounts.SPELLING if has_number else ()
    values = _values(call)
    over = candidates.unexplained(wish, function, " ".join([values, *counted]), _KNOWN)
    quoted = " ".join(clauses.QUOTED.findall(wish))
    return over | candidates.swallowed(values, quoted, function, others)


def _values(call: ToolCall) -> str:
    """What a call is made with, in words."""
    return " ".join(json.dumps(value, ensure_ascii=False) for value in call.arguments.values())


def _has_place(function: Mapping[str, Any], wish: str, words: set[str]) -> bool:
    """Whether the tool accounts for some of `words`, or can be called with some, and all its numbers were said."""
    parameters = function["parameters"]
    properties = {k: v for k, v in parameters.get("properties", {}).items() if isinstance(v, Mapping)}
    numbers = [name for name, about in properties.items() if amounts.number(about) is not None]
    if not amounts.said(clauses.QUOTED.sub("", wish)) and set(numbers) & set(parameters.get("required", ())):
        return False
    texts = [about for about in properties.values() if about.get("type") == "string" and "enum" not in about]
    choices = {str(value).lower() for about in properties.values() for value in about.get("enum", ())}
    return bool(texts or choices & words or words - candidates.left_over(wish, function, ()))


def lacks(function: Mapping[str, Any], call: ToolCall) -> tuple[str, ...]:
    """The required arguments that a call was made without: numbers that nobody has said."""
    return tuple(name for name in function["parameters"].get("required", ()) if name not in call.arguments)


def _replies(told: Sequence[str]) -> dict[str, str]:
    """What a person replied, by the names of the arguments that they were asked for."""
    pairs = zip(told[::2], told[1::2], strict=True)
    return {name: reply for asked, reply in pairs for name in tool_calls.read(asked).asks_for}


def _held(function: Mapping[str, Any], words: str, replies: Mapping[str, str]) -> dict[str, Any]:
    """The function as the grammar has it: its numbers are those that were said, so that none is made up.

    Those that were not said are left out, required or not.
    """
    parameters = function["parameters"]
    made: dict[str, Any] = {}
    for name, about in parameters.get("properties", {}).items():
        number = amounts.number(about)
        if number is None or "const" in number:
            made[name] = about
            continue
        said = amounts.values(replies.get(name, ""), name, number) or amounts.values(words, name, number)
        if "enum" in number:
            fitting = [n for n in number["enum"] if n in said]
            made[name] = {"enum": fitting} if fitting else about
        elif said:
            made[name] = {"enum": said}
        elif name in parameters.get("required", ()) and (only := amounts.settled(about)):
            made[name] = {"enum": only}
    required = [name for name in parameters.get("required", ()) if name in made]
    return {**function, "parameters": {**parameters, "properties": made, "required": required}}


def _inside(wish: str) -> str:
    """The wish as it stands inside a sentence: "Lamp on" is about the lamp."""
    first = wish.split(maxsplit=1)[0] if wish.strip() else ""
    return wish[0].lower() + wish[1:] if first[1:].islower() or first == "A" else wish


def _names(function: Mapping[str, Any]) -> set[str]:
    return set(function["function"]["parameters"].get("properties", {}))


def _required(function: Mapping[str, Any]) -> set[str]:
    return set(function.get("function", function)["parameters"].get("required", ()))


def _once(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Calls without those that are the same again: a model that repeats itself wants one."""
    made: list[ToolCall] = []
    for call in calls:
        if call not in made:
            made.append(call)
    return tuple(made)
