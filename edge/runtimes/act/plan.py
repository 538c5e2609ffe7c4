"""Steps with what they need of one another, made from the person's words before anything is seen or done.

A word that points back ("it", "that", "the result") becomes a value: what an earlier wish said, or what an earlier
step will find. The latter stays open until that step is done; nothing else of a step can change after it was planned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.runtimes.act import amounts, clauses
from edge.runtimes.act.manifest import Tool
from edge.runtimes.act.words import for_person
from edge.runtimes.tool_calls import ToolCall

GIVEN = 0  # the number of what came with the request: a file, a picture
_THING = (
    r"result|results|answer|output|text|list|content|contents|file|document|picture|image|photo|number|value|reply"
    r"|temperature|time|date|name|names|sum|total|reading|event|events|meeting|note|notes|message|summary|status"
)
_POINTING = re.compile(
    rf"(?:it|that|this|them|those|these|all of (?:it|them)|what (?:it|that|this) (?:says|is|was|contains)|the same"
    rf"|what (?:you|it) (?:found|find|finds|get|got|read)|there|(?:the|that|this|its|those|these) (?:{_THING}))",
    re.IGNORECASE,
)
_BACK = r"it|that|this|them|these|those|what (?:it|that|this) says"
_BACK += r"|(?:the|that|this|its) (?:results?|answer|output|text|contents?|list|reading)"
_OBJECT = re.compile(rf"(?<![\w\"'])(?:{_BACK})(?![\w\"'])(?! (?:is|was|are|says?|file|folder)\b)", re.IGNORECASE)
RESULT = '"the result"'
# What was found, and not what it was found by.
_FOUND = re.compile(
    r"\b(?:the|that|this|those|these|its) (?:results?|answers?|output|reading|contents?)\b"
    r"|\bwhat (?:you|it) (?:found|finds?|got|gets?|says|read)\b",
    re.IGNORECASE,
)
_SEARCHED = frozenset(("text", "query", "q", "words", "word", "keyword", "keywords", "pattern", "search", "topic"))
_HAS_POINTING = re.compile(r"\b(?:it|its|that|this|them|those|these|there|the same|the result|the results)\b", re.I)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Step:
    """One call to be made. `open` names arguments that are filled from the result of the step of that number."""

    number: int
    wish: str
    tool: str
    arguments: Mapping[str, Any]
    open: Mapping[str, int] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[int, ...]:
        """The steps that must be done before."""
        return tuple(sorted({n for n in self.open.values() if n != GIVEN}))


def pointed(wish: str) -> str:
    """The wish with the first word that points back as a value that a model copies whole.

    >>> pointed("add it to log.txt")
    'add "the result" to log.txt'
    """
    return _OBJECT.sub(RESULT, wish, count=1)


def settle(
    wish: str,
    call: ToolCall,
    missing: Sequence[str],
    earlier: Sequence[Step],
    tools: Mapping[str, Tool],
    *,
    given: bool,
) -> tuple[Step, tuple[str, ...]]:
    """The step that a call is, with what it points at put in, and the arguments that nothing says.

    1. What the last earlier step that reads something will find, where the wish names that: "the result".
    2. What an earlier step was called with under the same name: "turn on the hall light and dim it" is about the hall.
       Not what it searched for: of "find tea in my notes and send it to Ada" she wants what was found.
    3. What the last earlier step that reads something will find.
    4. What was given with the request.

    The verb of a wish is no value where a word points back: of "order them" a small model copies "order".
    """
    tool = tools[call.name]
    properties = tool.parameters.get("properties", {})
    settled: dict[str, Any] = {}
    open_: dict[str, int] = {}
    unsaid: list[str] = []
    found = next((s.number for s in reversed(earlier) if tools[s.tool].risk == "read"), GIVEN if given else None)
    wanted = {**call.arguments, **dict.fromkeys(missing)}
    for name, value in wanted.items():
        pointing = isinstance(value, str) and (_POINTING.fullmatch(value.strip(" \"'.")) or _is_verb(value, wish))
        if value is not None and not pointing:
            settled[name] = value
            continue
        before = next((s for s in reversed(earlier) if name in {*s.arguments, *s.open}), None)
        may_point = pointing or _HAS_POINTING.search(wish)
        fills = found if may_point and _takes_words(properties.get(name)) else None
        searched = before is not None and before.number == found and name in _SEARCHED
        names_it = _FOUND.search(wish) and (pointing or len(missing) == 1)
        if fills is not None and (searched or names_it):
            open_[name] = fills
        elif may_point and before and name in before.arguments:
            settled[name] = before.arguments[name]
        elif may_point and before:
            open_[name] = before.open[name]
        elif fills is not None:
            open_[name] = fills
        elif value is None:
            unsaid.append(name)
        else:
            settled[name] = value
    return Step(len(earlier) + 1, wish, call.name, settled, open_), tuple(unsaid)


def _is_verb(value: str, wish: str) -> bool:
    bare = clauses.QUOTED.sub("", wish)
    first = bare.split(maxsplit=1)[0].lower() if bare.strip() else ""
    return value.lower() == first and first in clauses.VERBS and bool(_OBJECT.search(bare))


def filled(step: Step, results: Mapping[int, str], tool: Tool) -> dict[str, Any]:
    """The arguments of a step once the steps it needs are done; `results` by number.

    Of a result that is a JSON object the value of the argument's own name is taken, if there is one; of a text for
    an argument that is a number, the first number in it.
    """
    made = dict(step.arguments)
    for name, number in step.open.items():
        about = tool.parameters.get("properties", {}).get(name, {})
        made[name] = _taken(results[number], name, about.get("type"))
    return {name: made[name] for name in tool.parameters.get("properties", made) if name in made} | made


def says_more(wish: str, step: Step) -> bool:
    """Whether a wish says a number that the step it came to has no use for.

    >>> says_more("dim it to 30 percent", Step(1, "", "set_light", {"room": "hall", "state": "on"}))
    True
    """
    values = list(step.arguments.values())
    has_number = any(isinstance(value, (int, float)) for value in values)
    return not has_number and bool(set(amounts.said(wish)) - set(amounts.said(" ".join(map(str, values)))))


def to_come(step: Step, tool: Tool) -> bool:
    """Whether a step has numbers that only the result of another will tell: of them nothing can be said before."""
    about = tool.parameters.get("properties", {})
    return any(n != GIVEN and about.get(name, {}).get("type") in ("integer", "number") for name, n in step.open.items())


def lines(steps: Sequence[Step]) -> list[str]:
    """A plan as a person reads it."""
    return [f"  {step.number}. {step.tool}  {arguments(step)}".rstrip() for step in steps]


def arguments(step: Step) -> str:
    """What a step is called with, in one line."""
    said = [f"{name} = {for_person(_spelled(value))}" for name, value in step.arguments.items()]
    for name, number in step.open.items():
        said.append(f"{name} = (what was given)" if number == GIVEN else f"{name} = (the result of step {number})")
    return ", ".join(said)


def _takes_words(about: Any) -> bool:
    return isinstance(about, Mapping) and "enum" not in about and about.get("type") in ("string", "integer", "number")


def _taken(text: str, name: str, kind: Any) -> Any:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        value = data.get(name, next(iter(data.values())) if len(data) == 1 else None)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            text = str(value)
    if kind in ("integer", "number") and (number := _NUMBER.search(text)):
        return int(float(number[0])) if kind == "integer" else float(number[0])
    return text.strip()


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
