"""What may be done: deny by default, and the reason for each decision.

1. A tool that no manifest lists is never run, nor one with arguments that do not fit.
2. Once words of a tool or a file are in sight, only tools that the user's own words chose before may run.
3. Reading runs unasked if the user allowed it, and if the exact call, or the plan it belongs to, comes from the user's
   own words, and if something confines it. All else is asked.
4. A yes is for the exact tool and arguments, once: none is kept, and the next call is asked for again.
5. Nobody there to ask means no.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import UsageError
from edge.runtimes.act.manifest import Rate, Tool

# Where words come from, the most trusted first.
ORIGINS = ("user", "tool", "file")


@dataclass(frozen=True)
class Policy:
    """What the user allowed beforehand. `yes_to` can only hold `read`: what changes something is asked for."""

    yes_to: frozenset[str] = frozenset()
    dry_run: bool = False

    def __post_init__(self) -> None:
        for risk in self.yes_to:
            if risk != "read":
                raise UsageError(
                    f"only reading can be allowed beforehand, not {risk!r}",
                    hint="what writes or executes is asked for at the moment it is done",
                )


@dataclass(frozen=True)
class Facts:
    """What is known when a call is judged.

    `wrong`: what is wrong with the arguments. `planned`: the call is a step of the plan that was made from the user's
    words alone. `chosen`: the user's words chose this tool. `recent`: calls in the period of the tool's rate.
    `confined_by`: what holds the tool in bounds; empty for nothing.
    """

    origin: str = "user"
    wrong: str | None = None
    planned: bool = False
    chosen: bool = False
    recent: int = 0
    confined_by: str = ""


@dataclass(frozen=True)
class Decision:
    """`verdict` is allow, ask or deny."""

    verdict: str
    reason: str


def decide(policy: Policy, tool: Tool | None, facts: Facts) -> Decision:
    """What is to become of a call of `tool`, which is None when nothing lists its name."""
    if tool is None:
        return Decision("deny", "no tool of that name is listed")  # rule 1
    if facts.wrong is not None:
        return Decision("deny", facts.wrong)  # rule 1
    own = facts.origin == "user"
    if not own and not facts.planned and not facts.chosen:  # rule 2
        return Decision("deny", f"words of a {facts.origin} cannot choose a tool that the user's words did not")
    if tool.rate and facts.recent >= tool.rate.count:
        return too_often(tool.rate)
    if tool.risk != "read":
        return Decision("ask", f"it may {tool.risk}")  # rules 3 and 4
    if "read" not in policy.yes_to:
        return Decision("ask", "reading was not allowed beforehand")
    if not own and not facts.planned:
        return Decision("ask", f"words of a {facts.origin} were in sight when it was chosen")
    if not facts.confined_by:
        return Decision("ask", "nothing on this machine confines it")
    return Decision("allow", "reading was allowed beforehand")


def worse(one: str, other: str) -> str:
    """The less trusted of two origins. Raises `UsageError` for a word that is none."""
    for origin in (one, other):
        if origin not in ORIGINS:
            raise UsageError(f"unknown origin {origin!r}", hint=f"there are: {', '.join(ORIGINS)}")
    return max(one, other, key=ORIGINS.index)


def too_often(rate: Rate) -> Decision:
    return Decision("deny", f"it may run {spoken(rate)}, and has")


def spoken(rate: Rate) -> str:
    period = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86400.0: "a day"}[rate.per_s]
    return f"{'once' if rate.count == 1 else f'{rate.count} times'} {period}"
