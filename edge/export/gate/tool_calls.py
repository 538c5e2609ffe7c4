"""Tool calls: what the source calls rightly, the export must still call, with the same arguments.

A model that acts is judged by what it does. Logits may be close and a digit of an argument wrong,
so the cases of `corpus/tool_calls.jsonl` are run: calls of tools that `smollm2-act` learned and of
tools that it never saw, two calls at once, something missing, nothing that fits. No phrase of them
was trained or calibrated with (`edge/export/training/act`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export.gate.replies import Reply, parted_at_near_tie
from edge.runtimes import tool_calls
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import Answer, ToolCall

MAX_TOKENS = 96
_FEWEST = 20  # a source that gets fewer cases right is not judged by them
_CASES = Path(__file__).parents[1] / "corpus" / "tool_calls.jsonl"


@dataclass(frozen=True)
class Case:
    """A request with its tools as ids, and what should be answered. `split` says what kind it is."""

    split: str
    request: str
    prompt: tuple[int, ...]
    wanted: Answer
    tools: tuple[dict[str, Any], ...] = ()

    def accepts(self, found: Answer) -> bool:
        """The same calls in the same order; where none is right, no call."""
        return found.sound and _plain(found.calls) == _plain(self.wanted.calls)


def cases(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[Case, ...]:
    """The cases that ship with edge, in the model's own template. Those with the same tools follow each other."""
    found = []
    for line in _CASES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer.encode(template.render(row["messages"], tools=row["tools"]))
        calls = tuple(ToolCall(c["name"], c["arguments"]) for c in row["calls"])
        found.append(
            Case(
                row["split"],
                row["messages"][-1]["content"],
                tuple(prompt),
                Answer(calls, row["text"]),
                tuple(row["tools"]),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Score:
    """Shares of cases, but `argument_f1`, which is over all (tool, argument, value) of all calls.

    `tool`: where a call is right, the names are right. `exact`: names and all arguments are right.
    `json`: what was called can be read. `refusals`: where no call is right, none was made.
    """

    tool: float
    exact: float
    argument_f1: float
    json: float
    refusals: float


def score(asked: Sequence[Case], found: Sequence[Answer]) -> Score:
    """How well `found` answers the cases."""
    pairs = list(zip(asked, found, strict=True))
    acting = [(c, a) for c, a in pairs if c.wanted.calls]
    idle = [(c, a) for c, a in pairs if not c.wanted.calls]
    wanted = Counter(p for c, _ in acting for p in _arguments(c.wanted.calls))
    given = Counter(p for _, a in acting for p in _arguments(a.calls))
    common = 2 * sum((wanted & given).values())
    return Score(
        tool=_share([[x.name for x in c.wanted.calls] == [x.name for x in a.calls] for c, a in acting]),
        exact=_share([c.accepts(a) for c, a in acting]),
        argument_f1=round(common / max(1, wanted.total() + given.total()), 4),
        json=_share([a.sound for _, a in pairs]),
        refusals=_share([c.accepts(a) for c, a in idle]),
    )


def compare(
    asked: Sequence[Case],
    source: Sequence[Reply],
    export: Iterator[Sequence[int]],
    tokenizer: Tokenizer,
    advance: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Both scores, and which cases that the source gets right the export lost.

    A case that was lost where the source itself was undecided is a near-tie, listed and not counted,
    as in `answers`.
    """
    wanted = [read(r.ids, tokenizer) for r in source]
    found: list[Answer] = []
    right = kept = same = 0
    lost: list[dict[str, str]] = []
    near_ties: list[dict[str, str]] = []
    for done, (case, reply, answer, ids) in enumerate(zip(asked, source, wanted, export, strict=True), 1):
        found.append(read(ids, tokenizer))
        same += reply.ids == tuple(ids)
        if case.accepts(answer):
            right += 1
            if case.accepts(found[-1]):
                kept += 1
            else:
                kind = near_ties if parted_at_near_tie(reply, ids) else lost
                kind.append({"request": case.request, "reply": tokenizer.decode(ids, skip_special=True)[:300]})
        advance(done)
    judged = right - len(near_ties)
    return {
        "cases": len(asked),
        "source": vars(score(asked, wanted)),
        "export": vars(score(asked, found)),
        "source_right": right,
        "kept": kept,
        "share_kept": kept / judged if judged >= _FEWEST else None,
        "identical_replies": same,
        "lost": lost,
        "near_ties": near_ties,
    }


def judge(found: dict[str, Any], least: float) -> list[str]:
    """What is wrong: fewer than `least` of the right cases kept, or less readable JSON by more than that allows."""
    failures = []
    if found["share_kept"] is not None and found["share_kept"] < least:
        lost = found["lost"][0]
        failures.append(
            f"of the tool calls that the source makes rightly {found['share_kept']:.0%} are still made "
            f"({least:.0%} must be): {lost['request']!r} gives {lost['reply']!r:.90}"
        )
    if found["export"]["json"] < found["source"]["json"] - (1 - least):
        failures.append(
            f"{found['export']['json']:.0%} of the answers can be read as tool calls or text, "
            f"{found['source']['json']:.0%} of the source's"
        )
    return failures


def read(ids: Sequence[int], tokenizer: Tokenizer) -> Answer:
    """What a reply means."""
    return tool_calls.read(tokenizer.decode(ids, skip_special=True))


def _plain(calls: Sequence[ToolCall]) -> list[tuple[str, dict[str, Any]]]:
    return [(c.name, dict(c.arguments)) for c in calls]


def _arguments(calls: Sequence[ToolCall]) -> Iterator[tuple[str, str, str]]:
    for c in calls:
        for name, value in c.arguments.items():
            yield c.name, name, json.dumps(value, sort_keys=True)


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4) if right else 1.0
