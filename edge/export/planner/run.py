"""From a budget to a bundle: measure, choose, build, look whether it holds, and choose again with what was learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from edge.bundle import Bundle
from edge.errors import BudgetError
from edge.export import cache
from edge.export.artifact import Artifact, Planned, Quantization
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.planner import say
from edge.export.planner import sensitivity as sensitivities
from edge.export.planner import variety as varieties
from edge.export.planner.budget import Budget, missed
from edge.export.planner.front import Candidate, Mix, choose, corrected, front, lesson, nearest
from edge.export.planner.sensitivity import Sensitivity
from edge.export.planner.variety import Variety
from edge.find import load
from edge.progress import Progress
from edge.runtimes.traffic import Traffic

FORMATS = "edge.export.planner.formats"
_BUILDS = 3  # what is built before it is said that the budget cannot be met
_SHOWN = 24  # mixtures of a format that are compared on the front; the choice is made from all


class Expected(Protocol):
    """What is predicted of a bundle: tokens a second (low, expected, high) or `None`, and bytes of memory by part."""

    @property
    def tokens_per_s(self) -> tuple[float, float, float] | None: ...
    @property
    def memory(self) -> Mapping[str, int]: ...
    @property
    def against(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


Expect = Callable[[Bundle, Traffic], Expected]


@dataclass(frozen=True)
class Built:
    """A candidate that was built: its size, what was measured, and what is wrong with it; `published` if nothing."""

    size_bytes: int
    kld: float | None
    agreement: float | None
    failures: tuple[str, ...]
    published: Any = None


@dataclass(frozen=True)
class Plan:
    """The front that was chosen from, the choice, and everything that a person should know about both.

    When nothing fits, `chosen` is what comes closest.
    """

    front: tuple[Candidate, ...]
    chosen: Candidate
    sentences: tuple[str, str]
    notes: tuple[str, ...]
    n_candidates: int
    budget: Budget
    fits: bool = True

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return say.record(self)


class Impossible(BudgetError):
    """Nothing fits; `plan` has the front, and what comes closest."""

    def __init__(self, message: str, *, hint: str | None, plan: Plan) -> None:
        super().__init__(message, hint=hint)
        self.plan = plan


@dataclass(frozen=True)
class Subject:
    """What is planned for: a checkpoint, its calibration text, and what all its bundles have in common.

    `full(format)` gives the artifact in full precision, `beside_bytes` is what a bundle holds beside the model's files,
    `draft` a manifest without files, and `unvaried_bytes` what is beside its matrices: a vision part, a cache's scales.
    """

    checkpoint: Checkpoint
    calibration: Calibration | None
    measured_on: Calibration
    context_length: int
    full: Callable[[str], Artifact]
    beside_bytes: Callable[[str], int]
    draft: Callable[[str], Bundle]
    unvaried_bytes: Callable[[str], int] = lambda name: 0
    notes: tuple[str, ...] = ()


class Planner:
    """All candidates of some formats for one subject; pure after `__init__`, which measures or reads the cache."""

    def __init__(self, subject: Subject, formats: Sequence[str], expect: Expect, progress: Progress) -> None:
        self.subject, self.expect = subject, expect
        self.sensitivity = sensitivities.measure(subject.checkpoint, subject.measured_on, progress)
        self.varieties = {name: _variety(subject, name, self.sensitivity, progress) for name in formats}
        self._common = {
            name: (subject.draft(name), subject.beside_bytes(name), subject.unvaried_bytes(name)) for name in formats
        }
        self.candidates = [
            self._candidate(name, mix, variety) for name, variety in self.varieties.items() for mix in variety.mixes()
        ]

    def plan(
        self, budget: Budget, lessons: Mapping[str, Callable[[Candidate], Candidate]] | None = None,
        without: Sequence[Candidate] = (),
    ) -> Plan:  # fmt: skip
        """The choice for a budget. Raises `Impossible` naming what comes closest when nothing fits."""
        gone = {c.name for c in without}
        left = corrected((c for c in self.candidates if c.name not in gone), lessons or {})
        chosen = choose(left, budget)
        if not left:
            raise BudgetError("impossible: every plan was tried")
        named = chosen or nearest(left, budget)
        variety = self.varieties[named.format]
        plan = Plan(
            front=tuple(front([*_some(left), named])),
            chosen=named,
            sentences=say.sentences(named, left, budget, variety)
            if chosen
            else say.impossible(named, budget, len(left)),
            notes=(*named.notes, *variety.notes, *self.subject.notes),
            n_candidates=len(left),
            budget=budget,
            fits=chosen is not None,
        )
        if chosen is None:
            raise Impossible("; ".join(plan.sentences), hint=say.way_out(budget, named), plan=plan)
        return plan

    def planned(self, candidate: Candidate) -> Planned | None:
        """What the format has to do; `None` for one of its own quantizations, which it knows by name."""
        variety = self.varieties[candidate.format]
        if candidate.mix.name in variety.named:
            return None
        per_weight = round(variety.bits_per_weight(candidate.mix), 2)
        kind = Quantization(
            f"mixed-{per_weight:.2f}", variety.class_bits(candidate.mix), per_weight, calibrated=True, about="planned"
        )
        return Planned(kind, variety.types(candidate.mix))

    def _candidate(self, format_name: str, mix: Mix, variety: Variety) -> Candidate:
        draft, beside, unvaried = self._common[format_name]
        weights = variety.rest_bytes + mix.n_bytes + unvaried
        draft = replace(draft, quantization=mix.name, memory={**draft.memory, "weights_bytes": weights})
        read = Traffic(variety.read_bytes(mix), int(draft.memory["kv_bytes_per_token"]), {}, {})
        expected = self.expect(draft, read)
        kld = self.sensitivity.kld(mix.damage) + self.sensitivity.floor * variety.few_bits(mix)
        return Candidate(
            format=format_name,
            mix=mix,
            size_bytes=weights + beside,
            memory_bytes=expected.memory["total_bytes"],
            kld=kld,
            agreement=max(0.0, 1 - self.sensitivity.lost(kld)),
            speed=expected.tokens_per_s,
            against=expected.against,
            notes=expected.notes,
        )


def fulfil(
    planner: Planner, budget: Budget, build: Callable[[Candidate, Planned | None, Plan], Built], progress: Progress
) -> tuple[Plan, Built]:
    """Build what was chosen; when it does not hold what was expected of it, choose again, a few times.

    What was measured of one corrects what is expected of all of its format. Raises `BudgetError` when nothing that was
    built holds.
    """
    lessons: dict[str, Callable[[Candidate], Candidate]] = {}
    first = {c.name: c for c in planner.candidates}
    tried: list[tuple[Candidate, Built]] = []
    for _ in range(_BUILDS):
        try:
            plan = planner.plan(budget, lessons, [c for c, _ in tried])
        except Impossible as err:
            if not tried:
                raise
            raise Impossible(say.given_up(tried, budget, err.message), hint=err.hint, plan=err.plan) from err
        except BudgetError as err:
            raise BudgetError(say.given_up(tried, budget, err.message), hint=err.hint) from err
        chosen = plan.chosen
        progress.say(f"building {chosen.name}: {say.expected(chosen)}")
        built = build(chosen, planner.planned(chosen), plan)
        if built.published is not None:
            return plan, built
        progress.say(f"{chosen.name} does not hold: {'; '.join(built.failures)}")
        tried.append((first[chosen.name], built))
        lessons[chosen.format] = lesson(first[chosen.name], built.size_bytes, built.kld, built.agreement)
    raise BudgetError(say.given_up(tried, budget), hint="ask for less, or choose with --quant")


def unheld(budget: Budget, size_bytes: int, agreement: float | None) -> list[str]:
    """What a bundle that was built misses, in words; memory and speed are predictions still."""
    have: dict[str, float | None] = {"max_size_bytes": size_bytes}
    if agreement is not None:
        have["min_agreement"] = agreement
    return [say.miss(name, budget, have[name]) for name in missed(budget, have)]


def _variety(subject: Subject, format_name: str, sensitivity: Sensitivity, progress: Progress) -> Variety:
    """From the cache, or measured on the artifact in full precision."""
    module = load(FORMATS, format_name)
    key = cache.key(
        checkpoint=subject.checkpoint.id,
        format=format_name,
        calibration=subject.calibration.sha256 if subject.calibration else None,
        measured_on=subject.measured_on.sha256,
        context_length=subject.context_length,
        code=cache.code_of(module.__name__),
        libraries=cache.libraries(),
    )
    found = cache.find("varieties", key)
    if found is not None:
        return varieties.from_json((found / "variety.json").read_text())
    made = module.variety(
        subject.full(format_name), subject.checkpoint, sensitivity, calibration=subject.calibration, progress=progress
    )
    with cache.building("varieties", key) as work:
        (work / "variety.json").write_text(varieties.to_json(made))
    return made  # type: ignore[no-any-return]


def _some(candidates: Sequence[Candidate]) -> list[Candidate]:
    """A format's own quantizations, and evenly some of its mixtures."""
    out: list[Candidate] = []
    for name in dict.fromkeys(c.format for c in candidates):
        mixed = [c for c in candidates if c.format == name and c.mix.name.startswith("mixed-")]
        out += [c for c in candidates if c.format == name and not c.mix.name.startswith("mixed-")]
        n = min(_SHOWN, len(mixed))
        out += [mixed[i * (len(mixed) - 1) // max(1, n - 1)] for i in range(n)]
    return list(dict.fromkeys(out))
