"""What carries out tool calls and stays in bounds, whatever the mind that asks for them has been told.

    with Hands(read("home.toml"), Policy(frozenset({"read"})), state=folder, ask=at_terminal()) as hands:
        hands.plan([Planned("read_file", {"path": "todo.txt"})], request="what is to do?")
        outcome = hands.perform(ToolCall("read_file", {"path": "todo.txt"}), origin="user")

Each call goes the same way: arguments checked, decided, asked, written down, run, written down.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, UsageError
from edge.find import load
from edge.runtimes.act import confinement, policy, reach, schema, words
from edge.runtimes.act.audit import Audit
from edge.runtimes.act.journal import Journal, Step
from edge.runtimes.act.manifest import EXECUTORS, Manifest, Tool
from edge.runtimes.act.policy import Decision, Facts, Policy
from edge.runtimes.act.ran import Place, Ran, ToolError
from edge.runtimes.tool_calls import ToolCall


@dataclass(frozen=True)
class Planned:
    """A step of a plan: the tool, the arguments that are settled, and the names of those that are still `open`."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a person is asked: `would` is exactly what happens on a yes. All texts are fit to be printed.

    `filled` names the arguments that the plan left to earlier steps; None when no plan made from the person's words
    has the call.
    """

    tool: Tool
    arguments: Mapping[str, Any]
    would: str
    reason: str
    origin: str
    confined_by: str
    filled: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    `status`: done, denied, failed, unknown (it was stopped or lost: what it changed cannot be told), or dry. `text` is
    for the model; `origin` is whose words are in it, and is user when there are none but edge's and the device's own.
    `would` is what was done, or would have been.
    """

    tool: str
    arguments: Mapping[str, Any]
    status: str
    text: str
    reason: str
    origin: str = "user"
    would: str = ""
    duration_ms: float = 0.0

    @property
    def message(self) -> dict[str, str]:
        """The outcome as chat templates take it."""
        return {"role": "tool", "name": self.tool, "content": self.text}


Ask = Callable[[Question], bool]


def state_folder() -> Path:
    """`$EDGE_STATE`, or `$XDG_STATE_HOME/edge`, or `~/.local/state/edge`, and in it `act`."""
    if home := os.environ.get("EDGE_STATE"):
        return Path(home) / "act"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edge" / "act"


class Hands:
    """Carries out the calls of one run, one after another.

    `ask` shows a person a question and says whether they said yes; None means that nobody is there. `run` names a run
    that may have been begun before: what was done then is not done again. Close it, or use it as a context.
    """

    def __init__(
        self,
        manifest: Manifest,
        rules: Policy | None = None,
        *,
        ask: Ask | None = None,
        state: Path | None = None,
        run: str | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.manifest, self.policy = manifest, rules or Policy()
        self.state = state or state_folder()
        self.audit = Audit(self.state / "audit.jsonl")
        self.journal = Journal(self.state / "journal.db")
        self.run = run or secrets.token_hex(6)
        self.origin = "user"
        self._ask = ask
        self._place = Place(self.state, now, closing=ExitStack())
        self._plan: dict[int, Planned] = {}
        self._chosen: set[str] = set()
        self._before = {step.step: step for step in self.journal.steps(self.run)}
        self._used: set[int] = set()
        self._heard: list[str] = []

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was kept open between calls."""
        self._place.closing.close()
        self.journal.close()

    def before(self) -> list[Step]:
        """The steps of this run that an earlier process planned, did, or began: what is known of each."""
        return list(self._before.values())

    def anew(self) -> None:
        """The person says something new, and the model sees nothing but that: a new run, with nothing chosen.

        For the program that leads the conversation to call, before it plans; never on the word of a model. A run that
        has not begun in this process stays, so that one which was interrupted can go on.
        """
        if self._plan or self._used:
            self.run = secrets.token_hex(6)
            self._before = {}
        self.origin = "user"
        self._plan, self._chosen, self._used, self._heard = {}, set(), set(), []

    def saw(self, origin: str, text: str = "") -> None:
        """Tell that words of a `file` or a `tool` are in the model's sight, by another way than an outcome.

        `text` is what may fill those arguments that the plan has left open.
        """
        self.origin = policy.worse(self.origin, origin)
        if text:
            self._heard.append(text)

    def plan(self, steps: Sequence[Planned], *, request: str = "", alone: bool = False) -> None:
        """What is going to be done, made from the user's words alone, before anything else was seen.

        It chooses the tools that may be used once other words are in sight. A plan that is made later grants nothing
        of that kind: its steps are decided like any others. Unless the program says that it was made `alone`, from
        words of the user that the model was shown without all others; that is never for a model to say.
        Raises `UsageError` for a tool that no manifest lists, and for arguments that are no JSON.
        """
        for step in steps:
            if step.tool not in self.manifest.tools:
                raise UsageError(f"the plan has a tool that no manifest lists: {step.tool!r}")
            try:
                schema.canonical(dict(step.arguments))
            except (ValueError, TypeError, RecursionError) as err:
                raise UsageError(f"the plan has arguments of {step.tool} that are no JSON: {err}") from err
        own = alone or self.origin == "user"
        self.audit.add(
            "plan", run=self.run, request=request, origin=self.origin,
            steps=[[step.tool, dict(step.arguments), list(step.open)] for step in steps],
        )  # fmt: skip
        if self.policy.dry_run:
            self._plan = dict(enumerate(steps)) if own else {}
        else:
            self.journal.begin(self.run, request)
            first = max((*self._before, *self._used, *self._plan, -1)) + 1 if not self._matches(steps) else 0
            for number, step in enumerate(steps, first):
                again = self.manifest.tools[step.tool].idempotent
                arguments = schema.canonical(dict(step.arguments))
                self.journal.plan(self.run, number, step.tool, arguments, step.open, idempotent=again)
                if own:
                    self._plan[number] = step
        if own:
            self._chosen |= {step.tool for step in steps}

    def perform(self, call: ToolCall, *, origin: str) -> Outcome:
        """Carry out `call`, or say why not.

        `origin` is the least trusted of what the model saw when it made the call; the hands know themselves what came
        from them, and take the worse of both. Raises `EdgeError` when the journal or the log cannot be written: then
        nothing was done.
        """
        self.saw(origin)
        # From here on the arguments are the text that is shown, decided on and run: nobody can change them meanwhile.
        tool = self.manifest.tools.get(call.name)
        wrong = None if tool is None else schema.wrong(call.arguments, tool.parameters)
        if tool is None or wrong is not None:
            reason = policy.decide(self.policy, tool, Facts(wrong=wrong)).reason
            shown = _loose(call.arguments)
            self.audit.add("deny", run=self.run, tool=call.name, arguments=shown, origin=self.origin, reason=reason)
            return self._denied(call.name, {}, reason)
        key = schema.canonical(dict(call.arguments))
        arguments: dict[str, Any] = json.loads(key)
        try:
            would = _would(tool, arguments)
        except EdgeError as err:
            self.audit.add("deny", run=self.run, tool=tool.name, arguments=key, origin=self.origin, reason=err.message)
            return self._denied(tool.name, arguments, err.message)
        number, planned = self._step(tool, arguments)
        filled = self._plan[number].open if planned else None
        if (known := self._known(tool, key, arguments, would, filled)) is not None:
            return known
        decision, confined_by = self._decide(tool, arguments, would, filled)
        event = {"allow": "allow", "deny": "deny", "dry": "dry"}[decision.verdict]
        self.audit.add(
            event, run=self.run, step=number, tool=tool.name, arguments=key, origin=self.origin,
            reason=decision.reason, confined_by=confined_by, would=would,
        )  # fmt: skip
        if decision.verdict == "deny":
            return self._denied(tool.name, arguments, decision.reason, would)
        if self.origin == "user":
            self._chosen.add(tool.name)
        self._used.add(number)
        if decision.verdict == "dry":
            return Outcome(tool.name, arguments, "dry", "not done: this is a dry run", decision.reason, would=would)
        return self._carried_out(tool, key, number, would, decision.reason)

    def _carried_out(self, tool: Tool, key: str, number: int, would: str, reason: str) -> Outcome:
        self.journal.begin(self.run, "")
        if not self.journal.start(self.run, number, tool.name, key, idempotent=tool.idempotent, rate=tool.rate):
            assert tool.rate
            late = policy.too_often(tool.rate).reason
            self.audit.add("deny", run=self.run, step=number, tool=tool.name, reason=late)
            return self._denied(tool.name, json.loads(key), late, would)
        began = time.monotonic()
        try:
            if _would(tool, json.loads(key)) != would:  # a link was swapped meanwhile
                raise ToolError("what it would do has changed since it was decided, so it was not done")
            ran = load(EXECUTORS, tool.kind).run(tool, json.loads(key), self._place)
        except EdgeError as err:
            ran = Ran(False, b"", str(err))
        except OSError as err:
            ran = Ran(False, b"", f"it could not be run: {err.strerror or err}", ended=False)
        took_ms = (time.monotonic() - began) * 1000
        outcome = _outcome(tool, json.loads(key), ran, reason, would, took_ms)
        took = round(took_ms, 1)
        try:
            self.journal.end(self.run, number, outcome.status, outcome.text)
            self.audit.add(outcome.status, run=self.run, step=number, tool=tool.name, reason=ran.why, duration_ms=took)
        except EdgeError as err:
            raise EdgeError(
                f"{tool.name} has ended ({outcome.status}), but that could not be written down: {err.message}",
                hint="it was done: do not begin it again before you have looked",
            ) from err
        self.saw(outcome.origin, outcome.text)
        return outcome

    def _decide(self, tool: Tool, arguments: dict, would: str, filled: tuple[str, ...] | None) -> tuple[Decision, str]:
        confined_by = confinement.of(tool)
        recent = self.journal.recent(tool.name, tool.rate.per_s) if tool.rate else 0
        facts = Facts(
            origin=self.origin, planned=filled is not None, chosen=tool.name in self._chosen, recent=recent,
            confined_by=confined_by,
        )  # fmt: skip
        decision = policy.decide(self.policy, tool, facts)
        if self.policy.dry_run and decision.verdict != "deny":
            asks = "would be asked for" if decision.verdict == "ask" else "would be done unasked"
            return Decision("dry", f"{asks}: {decision.reason}"), confined_by
        if decision.verdict == "ask":
            decision = self._asked(Question(tool, arguments, would, decision.reason, self.origin, confined_by, filled))
        return decision, confined_by

    def _asked(self, question: Question) -> Decision:
        if self._ask is None:
            return Decision("deny", f"{question.reason}, and nobody is there to be asked")
        if self._ask(question) is True:
            return Decision("allow", f"{question.reason}; the person said yes")
        return Decision("deny", f"{question.reason}; the person said no")

    def _step(self, tool: Tool, arguments: dict) -> tuple[int, bool]:
        """Which step this is, and whether the plan has it: each step of a plan stands for one call.

        What the plan has left open is filled by what was heard since, and by nothing else.
        """
        for number, step in sorted(self._plan.items()):
            fixed = {name: value for name, value in arguments.items() if name not in step.open}
            settled = schema.canonical(dict(step.arguments))
            same = step.tool == tool.name and schema.canonical(fixed) == settled
            if number not in self._used and same and all(self._was_heard(arguments.get(name)) for name in step.open):
                return number, True
        return max((*self._before, *self._used, *self._plan, -1)) + 1, False

    def _was_heard(self, value: Any) -> bool:
        """Whether each line of a value stands in something that was heard."""
        text = value if isinstance(value, str) else "" if value is None else schema.canonical(value)
        return all(any(line.strip() in heard for heard in self._heard) for line in text.splitlines() if line.strip())

    def _known(
        self, tool: Tool, key: str, arguments: dict, would: str, filled: tuple[str, ...] | None
    ) -> Outcome | None:
        """What became of exactly this call before this process began, if it must not be repeated."""
        for number, step in self._before.items():
            same = step.tool == tool.name and schema.canonical(dict(step.arguments)) == key
            # What only reads is read again: the world has gone on meanwhile.
            if number in self._used or not same or tool.risk == "read":
                continue
            if step.state == "done":
                self._used.add(number)
                origin = "user" if tool.trusted else "tool"
                self.saw(origin, step.text)
                return Outcome(tool.name, arguments, "done", step.text, "it was done before the interruption", origin)
            if step.state == "unknown" and not tool.idempotent:
                reason = "it was begun before the interruption, and may have been done already"
                again = f"{reason}: do it again?"
                question = Question(tool, arguments, would, again, self.origin, confinement.of(tool), filled)
                return self._doubtful(question, number, key, reason)
        return None

    def _doubtful(self, question: Question, number: int, key: str, reason: str) -> Outcome | None:
        """A step that may have been done already, and must not be done twice: only a person can say."""
        tool, arguments = question.tool, question.arguments
        if self._ask is not None and not self.policy.dry_run:
            if self._asked(question).verdict == "allow":
                self._used.add(number)
                return None
            self.journal.end(self.run, number, "unknown", "")  # they know now, and need not be told again
        self.audit.add("unknown", run=self.run, step=number, tool=tool.name, arguments=key, reason=reason)
        return Outcome(tool.name, arguments, "unknown", f"not done again: {reason}", reason)

    def _matches(self, steps: Sequence[Planned]) -> bool:
        """Whether this is the plan that an earlier process of this run has noted."""
        noted = [self._before[number] for number in range(len(steps)) if number in self._before]
        return not self._plan and [(s.tool, s.open) for s in noted] == [(s.tool, s.open) for s in steps]

    def _denied(self, name: str, arguments: Mapping[str, Any], reason: str, would: str = "") -> Outcome:
        text = f"not allowed: {words.for_model(reason, 300)}"
        return Outcome(name, arguments, "denied", text, reason, would=would)


def _would(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """What exactly is going to happen, with the paths that links lead to. Raises `ToolError` when nothing can."""
    return words.for_person(load(EXECUTORS, tool.kind).describe(tool.run, reach.settled(tool, arguments)))


def _outcome(tool: Tool, arguments: dict, ran: Ran, reason: str, would: str, took_ms: float) -> Outcome:
    text = words.decoded(ran.output)
    if text is None:
        text = f"({len(ran.output)} bytes that are no text)"
    text = words.for_model(text.strip("\n"))
    origin = "user" if tool.trusted else "tool"
    if ran.ok:
        return Outcome(tool.name, arguments, "done", text or "done", reason, origin, would, took_ms)
    status = "failed" if ran.ended or tool.risk == "read" else "unknown"
    doubt = "" if status == "failed" else "; what it had changed until then is not known"
    said = f"\n{text}" if text else ""
    why = f"{words.for_model(ran.why, 500)}{doubt}"
    return Outcome(tool.name, arguments, status, f"failed: {why}{said}", why, origin, would, took_ms)


def _loose(arguments: Any) -> str:
    """Arguments that may be no JSON, for the log."""
    return repr(arguments)[:2000]
