"""From a request to what was done: understand, plan, show, do, answer; bounded, and stopped between two steps.

    mind = Mind(model, hands, tell=print, ask=lambda question: input(question + " ") or None)
    report = mind.act("turn on the hall light and dim it to 30 percent")

The plan is made from the person's words alone (`intent`), before anything is done. What tools and files say only fills
the arguments that the plan left open, and is what the answer shows. Each call goes through the hands.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.errors import EdgeError
from edge.runtimes.act import candidates, clauses, intent, plan
from edge.runtimes.act.hands import Hands, Outcome, Planned
from edge.runtimes.act.intent import Budget, Meaning, OutOfBudget, Reader, Stopped
from edge.runtimes.act.memory import Memory, Recollection
from edge.runtimes.act.perception import Given, together
from edge.runtimes.act.plan import Step
from edge.runtimes.act.words import for_person
from edge.runtimes.model import Model
from edge.runtimes.tool_calls import NO_TOOL_FITS, ToolCall, ask

MOST_STEPS = 12
MOST_QUESTIONS = 3  # about one wish
MOST_REPLANS = 2  # in one request
_LATER = "it would be decided when its values are known"
_SHOWN = 1500  # characters of a result in an answer
_REMEMBER = re.compile(r"(?:please\s+)?remember\s+(?:that\s+)?(?!to\b)(?P<what>.+)", re.IGNORECASE | re.DOTALL)

Tell = Callable[[str], None]
AskPerson = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Done:
    """A step and what became of it; `outcome` is None when it was not tried, and `why` says why."""

    step: Step
    outcome: Outcome | None
    why: str = ""

    @property
    def status(self) -> str:
        """As `Outcome.status`, or skipped."""
        return "skipped" if self.outcome is None else self.outcome.status


@dataclass
class Report:
    """What a request led to. `impossible` are wishes that no tool fits, `unsaid` questions that nobody answered."""

    request: str
    steps: list[Done] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    answer: str = ""
    tokens: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all that was wanted was done, or would be in a dry run."""
        return not self.impossible and not self.unsaid and all(d.status in ("done", "dry") for d in self.steps)


class Mind:
    """Acts on requests, one after another. `ask` gives the person's reply to a question, None when there is none."""

    def __init__(
        self,
        model: Model,
        hands: Hands,
        *,
        tell: Tell = lambda text: None,
        ask: AskPerson = lambda question: None,
        memory: Memory | None = None,
        stopped: Callable[[], bool] = lambda: False,
        budget: Callable[[], Budget] = Budget,
        reader: Reader | None = None,
    ) -> None:
        """`stopped` says whether to stop: it is asked between two tokens and between two steps, never within one."""
        self.hands, self.memory = hands, memory
        self.reader = reader or Reader(model, hands.manifest.functions(), stopped=stopped)
        self._tell, self._ask, self._stopped, self._budget = tell, ask, stopped, budget
        self._reading_ms = 0.0  # what the model has taken of this request

    def act(self, request: str, given: Sequence[Given] = ()) -> Report:
        """Do what is wanted, as far as it is allowed.

        Raises `OutOfBudget` and `Stopped` while it plans, when nothing was done yet; later it ends with the step
        that runs, and the report says so.
        """
        request = request.encode("utf-8", "replace").decode()  # half a character is no text, and cannot be kept
        report = Report(request)
        self.hands.anew()  # the plan is made from these words alone, whatever was shown before
        budget = self._budget()
        clock = _Clock(report)
        if self.memory and (told := _REMEMBER.fullmatch(request.strip())):
            self.memory.remember(told["what"], origin="user")
            report.answer = "I will remember that."
            return report
        recalled = self.memory.recall(request, 3) if self.memory else []
        clock.stage("recall")
        self._reading_ms = 0.0
        steps = self._planned(request, report, budget, bool(given))
        clock.stage("plan")
        report.stages_ms |= {"intent": self._reading_ms, "plan": report.stages_ms.pop("plan") - self._reading_ms}
        report.tokens = budget.spent
        if report.unsaid:
            report.answer = "Nothing was done. " + " ".join(report.unsaid)
            return report
        if not steps:
            report.answer = _nothing(recalled, report)
            return report
        self._tell("\n".join(["plan:", *plan.lines(steps)]))
        for wish in report.impossible:
            self._tell(f"  not possible with these tools: {for_person(wish)}")
        self.hands.plan([Planned(s.tool, s.arguments, tuple(s.open)) for s in steps], request=request)
        results = {plan.GIVEN: together(given)} if given else {}
        for one in given:
            self.hands.saw(one.origin, one.text)
        self._execute(steps, results, report, budget)
        self._let_go()
        clock.stage("execution")
        report.answer = _answer(report)
        report.tokens = budget.spent
        return report

    def _read(self, wish: str, budget: Budget, **more: Any) -> Meaning:
        began = time.perf_counter()
        try:
            return self.reader.read(wish, budget, **more)
        finally:
            self._reading_ms += (time.perf_counter() - began) * 1000

    def _planned(self, request: str, report: Report, budget: Budget, given: bool) -> list[Step]:
        """The steps of all wishes, in order. A wish cut off at a mere "and" that means nothing alone goes back."""
        wishes = clauses.split(
            request,
            candidates.verbs(self.reader.functions),
            lambda words: candidates.names_tool(words, self.reader.functions),
        )
        steps: list[Step] = []
        whole: set[str] = set()
        begun: list[int] = []  # how many steps there were before each wish
        n = 0
        while n < len(wishes):
            begun.append(len(steps))
            wish = wishes[n]
            reads = given or any(self.hands.manifest.tools[s.tool].risk == "read" for s in steps)
            meaning = self._read(plan.pointed(wish.text) if reads and wish.text not in whole else wish.text, budget)
            before = wishes[n - 1].text
            if self._goes_back(wish, meaning, before in report.impossible):
                wishes = clauses.merge(wishes, n)
                n -= 1
                if before in report.impossible:
                    whole.add(wishes[n].text)  # what points back in it points into it
                del steps[begun[n] :], begun[n:]
                report.impossible = [text for text in report.impossible if text != before]
                continue
            self._settled(wish.text, meaning, steps, report, budget, given)
            if len(steps) > MOST_STEPS:
                raise OutOfBudget(f"the request has more than {MOST_STEPS} steps", hint="ask for less at once")
            n += 1
        return steps

    def _goes_back(self, wish: clauses.Clause, meaning: Meaning, alone: bool) -> bool:
        """Whether a wish belongs to the one before it, which meant nothing `alone`: "we need 12 pens, order them"."""
        if wish.sure or not (meaning.calls or meaning.missing):
            return not wish.sure
        return alone and bool(meaning.missing or any(self._lacks(call) for call in meaning.calls))

    def _lacks(self, call: ToolCall) -> tuple[str, ...]:
        return intent.lacks(self.reader.by_name[call.name], call)

    def _settled(
        self, wish: str, meaning: Meaning, steps: list[Step], report: Report, budget: Budget, given: bool
    ) -> None:
        """Add the steps of one wish, after asking for what nothing says."""
        tools = self.hands.manifest.tools
        calls: list[tuple[ToolCall, tuple[str, ...]]] = (
            [(c, self._lacks(c)) for c in meaning.calls]
            if meaning.calls
            else [(ToolCall(meaning.tool, {}), meaning.missing)]
        )
        if not meaning.calls and not meaning.missing:
            report.impossible.append(wish)
            return
        for call, missing in calls:
            step, unsaid = plan.settle(wish, call, missing, steps, tools, given=given)
            if not unsaid and meaning.missing:
                step = self._rest(wish, step, missing, budget)
            talk: list[str] = []
            for _ in range(MOST_QUESTIONS):
                if not unsaid:
                    break
                question = intent.question(self.reader.by_name[call.name], unsaid)
                reply = self._asked(question, call.name, unsaid)
                if reply is None:
                    break
                talk += [ask(unsaid), reply]
                again = self._read(wish, budget, told=talk)
                if not again.calls and not again.missing:
                    break
                known = again.calls[0] if again.calls else ToolCall(again.tool, {})
                lacking = again.missing or self._lacks(known)
                step, unsaid = plan.settle(wish, known, lacking, steps, tools, given=given)
            if unsaid:
                report.unsaid.append(intent.question(self.reader.by_name[call.name], unsaid))
            elif not any((s.tool, s.arguments, s.open) == (step.tool, step.arguments, step.open) for s in steps):
                steps.append(step)
            elif plan.says_more(wish, step):
                report.impossible.append(wish)  # the same was planned before, and has no use for the number in this

    def _rest(self, wish: str, step: Step, missing: Sequence[str], budget: Budget) -> Step:
        """A step whose missing arguments stand in an earlier wish: the model is told them, and says the others."""
        told = [ask(missing), ", ".join(str(step.arguments.get(name, "it")) for name in missing)]
        again = self._read(wish, budget, told=told)
        if not again.calls or again.calls[0].name != step.tool:
            return step
        others = {k: v for k, v in again.calls[0].arguments.items() if k not in missing}
        return Step(step.number, wish, step.tool, {**others, **step.arguments}, step.open)

    def _asked(self, question: str, tool: str, names: Sequence[str]) -> str | None:
        """The person's reply; what was said the last time is offered where one thing is missing."""
        usual = self._usual(tool, names[0]) if len(names) == 1 else None
        reply = self._ask(f"{question} [{for_person(usual)}]" if usual else question)
        if reply is None:
            return None
        return reply.strip() or usual

    def _usual(self, tool: str, name: str) -> str | None:
        for kept in self.memory.recall(f"{tool} {name}", 8) if self.memory else []:
            found = re.match(r"did (\S+) (\{.*\}) for: ", kept.text)
            if kept.origin == "user" and found and found[1] == tool:
                value = json.loads(found[2]).get(name)
                if value is not None:
                    return str(value)
        return None

    def _execute(self, steps: list[Step], results: dict[int, str], report: Report, budget: Budget) -> None:
        """Do the steps in order; what needs a step that was not done is left out."""
        tools = self.hands.manifest.tools
        replans = 0
        waiting = list(steps)
        tried: list[ToolCall] = []
        while waiting:
            step = waiting.pop(0)
            try:
                if self._stopped():
                    raise Stopped
                budget.tick()
            except (OutOfBudget, Stopped) as err:
                report.steps += [Done(s, None, err.message.partition(";")[0]) for s in (step, *waiting)]
                return
            if lost := [n for n in step.needs if n not in results]:
                report.steps.append(Done(step, None, f"it needs the result of step {lost[0]}"))
                continue
            if self.hands.policy.dry_run and plan.to_come(step, tools[step.tool]):
                would = f"{step.tool}  {plan.arguments(step)}"
                outcome = Outcome(step.tool, step.arguments, "dry", "", _LATER, would=would)
                report.steps.append(Done(step, outcome))
                self._tell(_line(step, outcome))
                results[step.number] = outcome.text
                continue
            call = ToolCall(step.tool, plan.filled(step, results, tools[step.tool]))
            if call in tried and not tools[step.tool].idempotent:
                report.steps.append(Done(step, None, "the same was done just before: this would go round in circles"))
                continue
            tried.append(call)
            outcome = self.hands.perform(call, origin="user")
            report.steps.append(Done(step, outcome))
            self._tell(_line(step, outcome))
            if outcome.status in ("done", "dry"):
                results[step.number] = outcome.text
                if outcome.status == "dry":
                    results[step.number] = f"(the result of step {step.number})"
                    self.hands.saw("user", results[step.number])  # it stands for what would have been heard
                self._remember(step, outcome)
            elif outcome.status == "failed" and replans < MOST_REPLANS:
                replans += 1
                if (other := self._replanned(step, outcome, tried, budget)) is not None:
                    report.steps.pop()
                    waiting.insert(0, other)

    def _let_go(self) -> None:
        """What is left of the plan will not be done: only a loss of power leaves steps to go on with."""
        if not self.hands.policy.dry_run:
            for step in self.hands.journal.steps(self.hands.run):
                if step.state == "planned":
                    self.hands.journal.end(self.hands.run, step.step, "denied", "not done")

    def _replanned(self, step: Step, outcome: Outcome, tried: Sequence[ToolCall], budget: Budget) -> Step | None:
        """Another way to the wish of a step that failed: as the person says it now, or with another tool.

        Of what the failed tool said, the model sees nothing.
        """
        words = self._ask(
            f"step {step.number} failed ({for_person(outcome.reason)}). Say it in other words, or leave it:"
        )
        if words and words.strip():
            meaning = self._read(words.strip(), budget)
        else:
            meaning = self._read(step.wish, budget, without=(step.tool,))
        for call in meaning.calls[:1]:
            if call not in tried and not self._lacks(call) and "it" not in call.arguments.values():
                self._tell(f"another way: {call.name}")
                said = words or step.wish
                self.hands.plan([Planned(call.name, call.arguments)], request=said, alone=True)
                return Step(step.number, said, call.name, call.arguments)
        return None

    def _remember(self, step: Step, outcome: Outcome) -> None:
        if self.memory is None or outcome.status != "done":
            return
        said = json.dumps(dict(step.arguments), ensure_ascii=False)
        try:
            self.memory.remember(f"did {step.tool} {said} for: {step.wish}"[:4000], origin="user")
            if self.hands.manifest.tools[step.tool].risk == "read":
                self.memory.remember(f"{step.tool} {said} said: {outcome.text}"[:2000], origin=outcome.origin)
        except EdgeError as err:  # it was done, and the rest of the plan can be
            self._tell(f"  not remembered: {err.message}")


class _Clock:
    def __init__(self, report: Report) -> None:
        self._report, self._at = report, time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self._report.stages_ms[name] = (now - self._at) * 1000
        self._at = now


def _nothing(recalled: Sequence[Recollection], report: Report) -> str:
    known = [
        f"I remember ({_whose(r.origin)}): {for_person(r.text)}" for r in recalled if not r.text.startswith("did ")
    ]
    return "\n".join([NO_TOOL_FITS, *known])


def _whose(origin: str) -> str:
    return {"user": "you said", "tool": "a tool said", "file": "a file said"}[origin]


def _line(step: Step, outcome: Outcome) -> str:
    """One step's end, for the person."""
    about = for_person(outcome.would or outcome.tool)
    words = {
        "done": f"done: {about}" if outcome.would else f"done: {about} ({for_person(outcome.reason)})",
        "dry": f"would: {about} ({for_person(outcome.reason)})",
        "denied": f"not done: {for_person(outcome.reason)}",
        "failed": f"failed: {for_person(outcome.reason)}",
        "unknown": f"unknown whether it was done: {for_person(outcome.reason)}",
    }
    return f"  {step.number}. {words[outcome.status]}"


def _answer(report: Report) -> str:
    """What the person wanted to know, from the results themselves, and what was not done."""
    said = []
    for done in report.steps:
        outcome = done.outcome
        if outcome is not None and outcome.status == "done":
            text = outcome.text if len(outcome.text) <= _SHOWN else outcome.text[:_SHOWN] + " …"
            said.append(_plainly(text))
        elif outcome is None:
            said.append(f"Step {done.step.number} was left out: {done.why}.")
        elif outcome.status != "dry":
            said.append(f"Step {done.step.number} ({done.step.tool}) was {_BECAME[outcome.status]}: {outcome.reason}.")
    said += [f"No tool can do this: {wish}" for wish in report.impossible]
    once = dict.fromkeys(said)
    return "\n".join("\n".join(for_person(line) for line in text.splitlines()) for text in once)


_BECAME = {"denied": "not done", "failed": "tried and failed", "unknown": "begun, and whether it was done is unknown"}


def _plainly(text: str) -> str:
    """A small JSON object as a person reads it; everything else as it is."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(data, dict) and all(isinstance(v, (str, int, float, bool, type(None))) for v in data.values()):
        return ", ".join(f"{key}: {value}" for key, value in data.items()) or "Done."
    return text
