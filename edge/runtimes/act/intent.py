"""One wish and a list of tools to calls, a question back, or "none of these": the model, held by a grammar.

What it sees is the person's own words alone. Results of tools and words of files are never shown to it here, so that
they can neither choose a tool nor say what it is called with.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgeError, UsageError
from edge.runtimes import tool_calls
from edge.runtimes.act import candidates
from edge.runtimes.grammar import Grammars
from edge.runtimes.model import Model
from edge.runtimes.session import Sampling
from edge.runtimes.tool_calls import Syntax, ToolCall

SHOWN_AT_ONCE = 5  # tools; the models that edge trains learned on manifests of two to six
MOST_LOOKS = 8  # lists of tools that are shown for one wish


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
    """What a wish means: calls; or `missing` arguments of `tool`; or none, and then maybe what the model said."""

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
        order = candidates.rank(wish, offered)
        best = Meaning()
        for look in range(MOST_LOOKS):
            shown = [offered[n] for n in order[look * SHOWN_AT_ONCE : (look + 1) * SHOWN_AT_ONCE]]
            if not shown:
                break
            found = self._look(wish, shown, told, budget)
            if found.calls or found.missing:
                return found
            best = best if best.said else found
        return best

    def _look(self, wish: str, shown: list[Any], told: Sequence[str], budget: Budget) -> Meaning:
        budget.tick()
        # As the manifest has them, not by rank: so tools that were shown before are not computed again.
        ranked, shown = shown, sorted(shown, key=self.functions.index)
        messages = [{"role": "user", "content": wish}]
        for n, text in enumerate(told):
            messages.append({"role": "user" if n % 2 else "assistant", "content": text})
        sampling = Sampling(max_tokens=max(1, min(192, budget.tokens - budget.spent)))
        words = " ".join([wish, *told[1::2]]) if self.copy else ""
        grammar = self._grammars.tools(shown, self.syntax, idle=self.taught, text=not self.taught, words=words)
        text = ""
        for piece in self.model.generate(messages, sampling, mask=grammar.mask(sampling), tools=shown):
            text += piece.text
            budget.spent += piece.token_id is not None
            if self._stopped():
                raise Stopped
        answer = tool_calls.read(text)
        if names := answer.asks_for:
            return self._asking(names, ranked)
        return Meaning(calls=_once(answer.calls), said="" if answer.refuses else answer.text.strip())

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


def _names(function: Mapping[str, Any]) -> set[str]:
    return set(function["function"]["parameters"].get("properties", {}))


def _once(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Calls without those that are the same again: a model that repeats itself wants one."""
    made: list[ToolCall] = []
    for call in calls:
        if call not in made:
            made.append(call)
    return tuple(made)
