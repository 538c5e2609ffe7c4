"""The order of the steps from a source to proven bundles, and nothing else.

    open -> (distill) -> preflight -> convert -> quantize -> (join with the vision part) -> pack -> verify -> publish

Converting and quantizing are kept in the cache under a hash of everything they depend on, so
that an export that was stopped goes on where it was, and a second one takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge import bundle
from edge.bundle import Bundle
from edge.errors import BudgetError, EdgeError, GateError, UsageError
from edge.export import artifact as artifacts
from edge.export import attention, cache, families, pack, preflight
from edge.export.artifact import Artifact, Need, Planned, Quantization
from edge.export.checkpoint import Checkpoint
from edge.export.publish import publishing, refuse_existing
from edge.export.source import open_source
from edge.find import load, names
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    from edge.export.calibrate import Calibration
    from edge.export.planner.run import Plan
    from edge.export.verify import Verdict
    from edge.export.vision.conversation import Eyes
    from edge.export.vision.split import Split

DEFAULT_CONTEXT_LENGTH = 2048
_FORMATS = "edge.export.formats"
_PACKINGS = "edge.export.packings"
_SEEING = "edge.export.vision.formats"
_SHORT = {None: "", "8bit": "-kv8"}  # what a bundle's name says of its KV cache


@dataclass(frozen=True)
class Exported:
    """One bundle that was published: where it lies, its manifest, what the gate said, and the plan it came from."""

    folder: Path
    bundle: Bundle
    verdict: Verdict | None
    plan: Plan | None = None


@dataclass(frozen=True)
class Job:
    """One format and quantization of one source; `planned` is that of no name, with what it was planned for."""

    module: ModuleType
    format: str
    quantization: str
    planned: Planned | None = None
    budget: Mapping[str, Any] | None = None

    @property
    def kind(self) -> Quantization:
        if self.planned is not None:
            return self.planned.kind
        return self.module.QUANTIZATIONS[self.quantization]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Texts:
    calibration: Calibration | None
    held_out: Calibration


@dataclass(frozen=True)
class Sight:
    """The vision part of a checkpoint that sees: what belongs to it, and how pictures become pixels."""

    split: Split
    rule: dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What all jobs of one export have in common. `text` is what text models are made from: all of it, or a part."""

    checkpoint: Checkpoint
    text: Checkpoint
    sight: Sight | None
    output: Path
    name: str
    context_length: int
    texts: _Texts
    gate: bool
    or_better: bool
    replace_existing: bool
    also: tuple[ModuleType, ...]
    made: dict[str, Any]
    exporter: str | None
    kv: str | None


# What makes the bundles once everything is prepared for them.
Maker = Callable[[Sequence[Job], Order, Progress], tuple[Exported, ...]]


def export(
    source: str | Path,
    output: str | Path = "out",
    *,
    formats: Sequence[str] = ("gguf",),
    quantization: str = "4bit",
    also: Sequence[str] = (),
    gate: bool = True,
    or_better: bool = False,
    context_length: int | None = None,
    calibration: Path | None = None,
    held_out: Path | None = None,
    calibrate: bool = True,
    keep_experts: int | None = None,
    distill: str | Path | None = None,
    name: str | None = None,
    exporter: str | None = None,
    kv: str | None = None,
    make: Maker | None = None,
    leave_out: bool = False,
    replace_existing: bool = False,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> tuple[Exported, ...]:
    """Export `source` to one bundle per format, each proven against it: `output/<name>-<format>-<quantization>`.

    `source` is a Hugging Face folder, a hub id, a GGUF file or a built-in name. `quantization`
    is a portable name ("16bit", "8bit", "4bit", ...) or a format's own ("q4_k_m", "int4", ...).
    `calibration` and `held_out` are text files of the model's own domain; without them the
    texts that ship with edge are used. With `or_better`, a quantization that fails the gate is
    followed by the next larger one until one passes. `exporter` is who writes the ONNX graph ("mobius",
    "optimum"). `also` names single files of other programs to put beside the model ("litertlm"). `kv` "8bit" is a
    KV cache of half the memory or less. `keep_experts` leaves all but so many experts of each layer out, those that
    calibration uses least. `distill` is a recipe, by which a smaller student is made first: a TOML file
    or the name of one that ships; bundles are then compared with the student, and say how far that is from its
    teacher. `gate=False` marks the bundles as unproven. `make` makes the bundles of what was prepared; with
    `edge.export.within.within` they are planned for a budget, and `quantization` is not looked at. With `leave_out`,
    formats that cannot be made of this source are left out, and it is said; one must remain.

    Every bundle that passes is published even when another fails. Raises `UsageError` for a
    request that makes no sense, `InputError` for damaged input, `EdgeError` when memory or
    disk do not suffice, and `GateError` when the gate is not met; a failed gate publishes nothing.

    >>> import edge
    >>> [done] = edge.export("smollm2", formats=["gguf"], quantization="8bit")  # doctest: +SKIP
    >>> done.bundle.proven  # doctest: +SKIP
    True
    """
    progress = progress or Silent()
    output = Path(output).expanduser()
    jobs = [_job(format_name, quantization) for format_name in _unique(formats)]
    packings = _packings(also, jobs)
    jobs = _able(jobs, lambda job: _check_asked(job, exporter, kv), leave_out, progress)
    recipe = _recipe(distill, keep_experts)
    progress.start(f"opening {source}")
    checkpoint = open_source(source, progress=progress)
    made: dict[str, Any] = {}
    if recipe is not None:
        from edge.export.distill.run import distill as make_student

        student = make_student(checkpoint, recipe, progress)
        checkpoint, made = student.student, {"distilled": student.record}
    jobs = [_job(job.format, quantization, checkpoint.family) for job in jobs]
    name = _name(name or checkpoint.name + (f"-{keep_experts}-experts" if keep_experts else "") + _SHORT[kv])
    sight = _sight(checkpoint)
    text = sight.split.text if sight else checkpoint

    def fits(job: Job) -> None:
        if sight:
            load(_SEEING, job.format).check(checkpoint, sight.split, sight.rule)
        if kv is not None:
            job.module.narrow_element_bytes(text, calibrated=calibrate)
        if calibrate:
            _refuse_calibration(checkpoint, job)

    jobs = _able(jobs, fits, leave_out, progress)
    length = _context_length(text, context_length)
    attention.check_frequencies(text, length)
    if not replace_existing and make is None:
        for job in jobs:
            refuse_existing(output / bundle_name(name, job))
    preflight.check(_need(checkpoint, jobs, gate, calibrate), output, time_limit_s=time_limit_s)
    looks = calibration is not None or make is not None or any(job.kind.calibrated for job in jobs)
    texts = _texts(checkpoint, calibration, held_out, calibrate, sight if looks else None)
    if calibration is not None and texts.calibration is not None and (words := _foreign(text, texts, progress)):
        made["warning"] = words
    if keep_experts is not None:
        checkpoint, fewer = _with_fewer_experts(checkpoint, keep_experts, texts, progress)
        text, made = checkpoint, {**made, "experts_kept": fewer}
    order = Order(
        checkpoint=checkpoint,
        text=text,
        sight=sight,
        output=output,
        name=name,
        context_length=length,
        texts=texts,
        gate=gate,
        or_better=or_better,
        replace_existing=replace_existing,
        also=packings,
        made=made,
        exporter=exporter,
        kv=kv,
    )
    return (make or _each)(jobs, order, progress)


def each(jobs: Iterable[Job], one: Callable[[Job], Exported | None]) -> tuple[Exported, ...]:
    """`one` of each job; what fails does not keep the others from being published, and is raised in the end."""
    done: list[Exported] = []
    failed: list[EdgeError] = []
    for job in jobs:
        try:
            done += filter(None, [one(job)])
        except (GateError, BudgetError) as err:
            failed.append(err)
    if failed:
        published = [f"published: {d.folder}" for d in done]
        kind = BudgetError if isinstance(failed[0], BudgetError) else GateError
        raise kind(
            "\n".join([err.message for err in failed] + published), hint="\n  ".join(err.hint or "" for err in failed)
        )
    return tuple(done)


def estimate(
    source: str | Path,
    *,
    formats: Sequence[str] = ("gguf",),
    quantization: str = "4bit",
    gate: bool = True,
    calibrate: bool = True,
) -> Need:
    """What `export` would take when nothing is in the cache. Raises as `export` does for what makes no sense."""
    checkpoint = open_source(source)
    jobs = [_job(format_name, quantization, checkpoint.family) for format_name in _unique(formats)]
    return _need(checkpoint, jobs, gate, calibrate)


def _recipe(distill: str | Path | None, keep_experts: int | None) -> Any:
    """The recipe, read before anything is opened: it may be wrong."""
    if distill is None:
        return None
    if keep_experts is not None:
        raise UsageError(
            "--experts and --distill both make another model of the source",
            hint="put [student.experts] keep = N into the recipe",
        )
    from edge.export.distill import recipe

    return recipe.read(distill)


def _need(checkpoint: Checkpoint, jobs: Sequence[Job], gate: bool, calibrate: bool) -> Need:
    needs = [preflight.gate_need(checkpoint)] if gate else []
    if calibrate and any(job.kind.calibrated for job in jobs):
        needs.append(preflight.calibration_need(checkpoint))
    needs += [job.module.estimate(checkpoint, job.quantization, calibrated=calibrate) for job in jobs]
    if checkpoint.family == "vlm":
        from edge.export.vision.split import n_parameters

        text, vision = n_parameters(checkpoint)
        needs.append(Need(ram_bytes=0, disk_bytes=4 * text, time_s=text / 2e8))  # the text part, copied into the cache
        needs += [load(_SEEING, job.format).estimate(text, vision) for job in jobs]
    return preflight.total(needs)


def _each(jobs: Sequence[Job], order: Order, progress: Progress) -> tuple[Exported, ...]:
    """A bundle of each job."""
    return each(jobs, lambda job: _one(job, order, progress))


def _one(job: Job, order: Order, progress: Progress) -> Exported:
    """All stages for one job; with `or_better`, for one after the other until the gate is met."""
    while True:
        made = attempt(job, order, progress)
        if made.exported is not None:
            return made.exported
        verdict = made.verdict
        assert verdict is not None
        better = next((q for q in verdict.suggestions if q in job.module.QUANTIZATIONS), None)
        if better is None or not order.or_better:
            raise GateError(
                _failure(job, verdict), hint=_way_out(verdict, calibrated=order.texts.calibration is not None)
            )
        progress.say(f"{job.quantization} does not pass: {verdict.failures[0]}; trying {better}")
        job = replace(job, quantization=better)


@dataclass(frozen=True)
class Attempt:
    """What came of one job: the manifest, the gate's verdict if it was asked, what was `refused`, and the bundle."""

    draft: Bundle
    verdict: Verdict | None
    refused: tuple[str, ...]
    exported: Exported | None


def attempt(
    job: Job, order: Order, progress: Progress,
    refuse: Callable[[Bundle, Verdict | None], Sequence[str]] = lambda draft, verdict: (),
    look: Callable[[Path, Bundle], None] = lambda folder, draft: None,
) -> Attempt:  # fmt: skip
    """All stages for one job. What does not pass the gate, or what `refuse` has a word against, is not published.

    `refuse` is asked before the gate, which takes its time, and after it. `look` sees the files, which may go again.
    """
    progress.say(f"{job.format} {job.quantization}")
    artifact = _convert(job, order, progress)
    for warning in artifact.warnings:
        progress.say(f"note: {warning}")
    target = order.output / bundle_name(order.name, job)
    with publishing(target, replace=order.replace_existing) as folder:
        progress.start("packing")
        pack.fill(folder, artifact, order.checkpoint)
        draft = pack.draft(
            folder, order.name, artifact, order.checkpoint, kv_element_bytes=_element_bytes(job, artifact),
            text=order.text,
        )  # fmt: skip
        for packing in order.also:
            if job.format == packing.FORMAT:
                packing.write(folder, draft, order.checkpoint.config)
                draft = replace(draft, files=bundle.list_files(folder))
        look(folder, draft)
        if wrong := tuple(refuse(draft, None)):
            return Attempt(draft, None, wrong, None)
        verdict = _verify(folder, draft, artifact, order, progress) if order.gate else None
        if verdict is not None and order.made:
            verdict = replace(verdict, record={**verdict.record, **order.made})
        if wrong := tuple(refuse(draft, verdict)):
            return Attempt(draft, verdict, wrong, None)
        if verdict is not None and not verdict.passed:
            return Attempt(draft, verdict, (), None)
        proven = draft if verdict is None else _proven(draft, verdict)
        bundle.write(proven, folder)
    return Attempt(proven, verdict, (), Exported(target, proven, verdict))


def full(job: Job, order: Order, progress: Progress) -> Artifact:
    """The artifact in full precision, from the cache or made now."""
    asked = {} if order.exporter is None else {"exporter": order.exporter}
    return _stage(
        f"{job.format}-full",
        cache.key(**_common(job, order)),
        lambda folder: job.module.convert(
            order.text, folder, context_length=order.context_length, progress=progress, **asked
        ),
    )


def _common(job: Job, order: Order) -> dict[str, Any]:
    """What all stages of a format depend on."""
    asked = {} if order.exporter is None else {"exporter": order.exporter}
    return {
        "checkpoint": order.text.id,
        "format": job.format,
        "code": cache.code_of(job.module.__name__),
        "libraries": cache.libraries(),
        "context_length": order.context_length,
    } | asked


def _convert(job: Job, order: Order, progress: Progress) -> Artifact:
    """The quantized artifact, from the cache or made now; with its vision part, if the model sees."""
    checkpoint, calibration = order.text, order.texts.calibration
    used = calibration if job.kind.calibrated else None
    planned = {} if job.planned is None else {"planned": job.planned}

    def whole() -> Artifact:
        return full(job, order, progress)

    key = cache.key(
        **_common(job, order), quantization=job.quantization, calibration=used.sha256 if used else None,
        **{name: plan.record() for name, plan in planned.items()},
    )  # fmt: skip
    made = _stage(
        f"{job.format}-quantized",
        key,
        lambda folder: job.module.quantize(
            whole(), checkpoint, job.quantization, folder, calibration=used, progress=progress, **planned
        ),
    )
    if used is not None:
        made = replace(made, plan={**made.plan, "calibrated_with": used.record()})
    if order.kv is not None:
        key = cache.key(
            text=key, kv=order.kv, calibration=calibration.sha256 if calibration else None,
            code=cache.code_of(f"edge.runtimes.engines.{job.format}"),
        )  # fmt: skip
        wide = made
        made = _stage(
            f"{job.format}-narrow",
            key,
            lambda folder: job.module.narrow_cache(
                wide, whole, checkpoint, folder, calibration=calibration, progress=progress
            ),
        )
    if job.budget is not None:
        made = replace(made, plan={**made.plan, "budget": dict(job.budget)})
    return _join(job, order, order.sight, made, key, progress) if order.sight else made


def _join(job: Job, order: Order, sight: Sight, text: Artifact, text_key: str, progress: Progress) -> Artifact:
    """The text part and the vision part as one."""
    module = load(_SEEING, job.format)
    return _stage(
        f"{job.format}-joined",
        cache.key(**_of_vision(job, order, sight), text=text_key),
        lambda folder: module.join(
            text, vision(job, order, sight, progress), order.checkpoint, sight.split, sight.rule, folder
        ),
    )


def vision(job: Job, order: Order, sight: Sight, progress: Progress) -> Artifact:
    """The vision part, from the cache or made now: in 32 bits, or in 16 when the text part has fewer."""
    common = _of_vision(job, order, sight)
    return _stage(
        f"{job.format}-vision",
        cache.key(**common, libraries=cache.libraries()),
        lambda folder: load(_SEEING, job.format).convert(
            order.checkpoint, sight.split, sight.rule, folder, half=common["half"], progress=progress
        ),
    )


def _of_vision(job: Job, order: Order, sight: Sight) -> dict[str, Any]:
    """What the vision part depends on."""
    code = cache.code_of(f"{_SEEING}.{job.format}")
    return {"checkpoint": order.checkpoint.id, "rule": sight.rule, "code": code, "half": job.kind.bits < 32}


def _sight(checkpoint: Checkpoint) -> Sight | None:
    """What makes a checkpoint of a family that sees more than text; its files are checked against each other here."""
    split = getattr(families.of(checkpoint.config, checkpoint.name), "split", None)
    if split is None:
        return None
    from edge.export.vision.rule import rule

    return Sight(split(checkpoint), rule(checkpoint))


def _stage(kind: str, key: str, make: Callable[[Path], Artifact]) -> Artifact:
    """What `make` wrote, from the cache when it is there and whole."""
    found = cache.find(kind, key)
    if found and (artifact := artifacts.restore(found)):
        return artifact
    cache.discard(kind, key)
    with cache.building(kind, key) as folder:
        artifacts.save(make(folder))
    found = cache.find(kind, key)
    artifact = artifacts.restore(found) if found else None
    if artifact is None:
        raise EdgeError(f"the finished stage {kind}/{key} vanished from the cache", hint="run the export again")
    return artifact


def _with_fewer_experts(
    checkpoint: Checkpoint, keep: int, texts: _Texts, progress: Progress
) -> tuple[Checkpoint, dict[str, Any]]:
    from edge.export import keep_experts

    keep_experts.check(checkpoint, keep, texts.calibration)
    assert texts.calibration is not None
    made, record = keep_experts.pruned(checkpoint, keep, texts.calibration, texts.held_out, progress)
    progress.say(
        f"keeping {keep} of {record['of']} experts ({record['share_of_use']:.0%} of their use) costs a mean KLD of "
        f"{record['mean_kld']:.3g} nats to the whole model; perplexity {record['perplexity_source']:.2f} becomes "
        f"{record['perplexity_export']:.2f}"
    )
    return made, record


def _texts(
    checkpoint: Checkpoint, calibration: Path | None, held_out: Path | None, calibrate: bool, sight: Sight | None
) -> _Texts:
    """What to calibrate with, pictures too if there is `sight`, and what to judge by; the two never overlap."""
    from edge.export import calibrate as texts
    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

    tokenizer, template = Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder)
    eyes = _eyes(checkpoint, sight) if calibrate else None
    own = texts.from_file(calibration, tokenizer, eyes=eyes) if calibration else None
    chosen = (own or texts.default_calibration(tokenizer, template, eyes)) if calibrate else None
    judged = texts.from_file(held_out, tokenizer) if held_out else texts.held_out(tokenizer, template)
    if chosen is not None and (calibration or held_out):
        # Those that ship are disjoint, which tests hold; templates that explain tools at length would look shared.
        texts.check_disjoint(chosen, judged)
    if own is not None and eyes is not None:
        chosen = texts.completed(own, texts.default_calibration(tokenizer, template, eyes))
    return _Texts(chosen, judged)


def _eyes(checkpoint: Checkpoint, sight: Sight | None) -> Eyes | None:
    if sight is None:
        return None
    from edge.export.vision.conversation import Eyes

    return Eyes(checkpoint, sight.rule)


def _foreign(checkpoint: Checkpoint, texts: _Texts, progress: Progress) -> str:
    """A warning when the model hardly understands the text that it is calibrated with; empty if it does.

    A source that does not fit in memory is not asked.
    """
    if texts.calibration is None or not preflight.holds_source(checkpoint):
        return ""
    from edge.export import calibrate, foreign
    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

    progress.start("reading the text for calibration")
    usual = calibrate.held_out(Tokenizer.load(checkpoint.folder), ChatTemplate.load(checkpoint.folder))
    found, chat = (foreign.cost(checkpoint, one, progress) for one in (texts.calibration, usual))
    if words := foreign.warning(checkpoint, texts.calibration, found, chat):
        words += "; what matters to text that it never sees well is not what matters to its own"
        progress.say(f"note: {words}")
    return words


def _verify(folder: Path, draft: Bundle, artifact: Artifact, order: Order, progress: Progress) -> Verdict:
    """The gate's verdict; the one on the very same bytes, code and text is remembered."""
    from edge.export import verify as gate

    key = cache.key(
        bundle=bundle.to_json(draft),
        checkpoint=order.checkpoint.id,
        held_out=order.texts.held_out.sha256,
        code=cache.code_of(gate.__name__),
        format=cache.code_of(f"{_FORMATS}.{artifact.format}"),
        engine=cache.code_of(f"edge.runtimes.engines.{artifact.format}"),
        encoder=cache.code_of(f"edge.runtimes.encoders.{artifact.format}") if order.sight else None,
        libraries=cache.libraries(),
    )
    found = cache.find("verdicts", key)
    if found is not None:
        progress.say("judged before: the same bytes, the same text")
        return gate.from_json((found / "verdict.json").read_text())
    verdict = gate.verify(order.checkpoint, folder, draft, artifact, held_out=order.texts.held_out, progress=progress)
    with cache.building("verdicts", key) as work:
        (work / "verdict.json").write_text(gate.to_json(verdict))
    return verdict


def _proven(draft: Bundle, verdict: Verdict) -> Bundle:
    return replace(draft, proven=True, quality=verdict.record, selftest=verdict.selftest)


def _job(format_name: str, quantization: str, family: str | None = None) -> Job:
    module = load(_FORMATS, format_name)
    known_as = artifacts.portable(module, family)
    own = known_as.get(quantization, quantization)
    if own not in module.QUANTIZATIONS:
        known = ", ".join([*known_as, *module.QUANTIZATIONS])
        raise UsageError(f"{format_name} has no quantization {quantization!r}", hint=f"there are: {known}")
    return Job(module, format_name, own)


def _able(jobs: Sequence[Job], check: Callable[[Job], None], leave_out: bool, progress: Progress) -> list[Job]:
    """The jobs that `check` has nothing against; with `leave_out` fewer, else all of them or its `UsageError`."""
    found, refused = [], []
    for job in jobs:
        try:
            check(job)
        except UsageError as err:
            refused.append(err)
            if not leave_out:
                raise
            progress.say(f"{job.format} is left out: {err.message}")
        else:
            found.append(job)
    if not found:
        raise refused[-1]
    return found


def _check_asked(job: Job, exporter: str | None, kv: str | None) -> None:
    known = getattr(job.module, "EXPORTERS", ())
    if exporter is not None and exporter not in known:
        raise UsageError(
            f"{job.format} has no exporter {exporter!r}",
            hint=f"there are: {', '.join(known)}" if known else f"leave out --exporter: {job.format} has one only",
        )
    if kv not in _SHORT:
        raise UsageError(f"there is no KV cache of {kv!r}", hint="there is: 8bit")
    if kv is not None and not hasattr(job.module, "narrow_cache"):
        raise UsageError(
            f"{job.format} has no KV cache of 8 bits: its runtime reads keys and values in float32",
            hint="leave out --kv, or choose another format",
        )


def _element_bytes(job: Job, artifact: Artifact) -> float:
    """Of an element of the KV cache."""
    narrow = artifact.plan.get("kv_cache")
    return float(narrow["element_bytes"]) if narrow else job.module.kv_element_bytes(artifact.quantization)


def _refuse_calibration(checkpoint: Checkpoint, job: Job) -> None:
    """Raise `UsageError` for a calibration that goes over a matrix again and again, of a source read from disk."""
    carried = getattr(job.module, "carries_errors", lambda quantization: False)(job.quantization)
    if carried and not preflight.holds_source(checkpoint):
        raise UsageError(
            f"{job.format} {job.quantization} carries rounding errors over, for which the source must be in memory: "
            f"{4 * checkpoint.n_parameters / 1e9:.0f} GB in float32 are more than half of what is available",
            hint="leave the calibration out (--no-calibration), which rounds to nearest; or choose gguf, which "
            "calibrates layer by layer",
        )


def _unique(formats: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(formats))
    if not chosen:
        raise UsageError("no format was asked for", hint=f"there are: {', '.join(names(_FORMATS))}")
    return chosen


def _packings(also: Sequence[str], jobs: Sequence[Job]) -> tuple[ModuleType, ...]:
    found = tuple(load(_PACKINGS, name) for name in dict.fromkeys(also))
    for name, module in zip(dict.fromkeys(also), found, strict=True):
        if module.FORMAT not in {job.format for job in jobs}:
            raise UsageError(
                f"{name} is made from {module.FORMAT}, which was not asked for", hint=f"add --format {module.FORMAT}"
            )
    return found


def _name(name: str) -> str:
    """A name that is one folder name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise UsageError(
            f"{name!r} cannot be the name of a bundle",
            hint="give one with --name: letters, digits, dots, dashes, at most 100 of them",
        )
    return name


def measured_on(order: Order) -> Calibration:
    """The text that sensitivities are measured on: that of calibration, also where nothing is calibrated with it."""
    if order.texts.calibration is not None:
        return order.texts.calibration
    from edge.export import calibrate
    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

    folder = order.text.folder
    eyes = _eyes(order.checkpoint, order.sight)
    return calibrate.default_calibration(Tokenizer.load(folder), ChatTemplate.load(folder), eyes)


def bundle_name(name: str, job: Job) -> str:
    return f"{name}-{job.format}-{job.quantization}"


def _context_length(checkpoint: Checkpoint, asked: int | None) -> int:
    most = pack.model_context_length(checkpoint)
    if asked is None:
        return min(most, DEFAULT_CONTEXT_LENGTH)
    if not 0 < asked <= most:
        raise UsageError(f"a context of {asked} tokens was asked for; {checkpoint.name} was made for 1 to {most}")
    return asked


def _failure(job: Job, verdict: Verdict) -> str:
    return f"{job.format} {job.quantization} does not behave like its source: " + "; ".join(verdict.failures)


def _way_out(verdict: Verdict, *, calibrated: bool) -> str:
    offers = ["calibration (leave out --no-calibration)"] if not calibrated else []
    offers += [f"--quant {s}" for s in verdict.suggestions]
    return f"nothing was published; try {', '.join(offers) or 'another format'}, or --or-better to try them in turn"


def to_record(done: Exported) -> dict[str, Any]:
    """What `edge export --json` says about one bundle."""
    return {
        "folder": str(done.folder),
        "id": done.bundle.id,
        "format": done.bundle.format,
        "quantization": done.bundle.quantization,
        "size_bytes": done.bundle.size_bytes,
        "proven": done.bundle.proven,
        "quality": done.bundle.quality,
        **({"plan": done.plan.record()} if done.plan else {}),
    }
