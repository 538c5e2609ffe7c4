"""The order of the steps from a source to proven bundles, and nothing else.

    open -> (distill) -> preflight -> convert -> quantize -> (join with the vision part) -> pack -> verify -> publish

Converting and quantizing are kept in the cache under a hash of everything they depend on, so
that an export that was stopped goes on where it was, and a second one takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import bundle
from edge.bundle import Bundle
from edge.errors import BudgetError, EdgeError, GateError, UsageError
from edge.export import attention, pack, preflight, stages
from edge.export.artifact import Artifact, Need
from edge.export.checkpoint import Checkpoint
from edge.export.order import (
    SEEING,
    SHORT,
    Job,
    Order,
    able,
    bundle_name,
    check_asked,
    checked_name,
    fitting_context,
    job_of,
    packings_of,
    refuse_calibration,
    sight_of,
    unique,
)
from edge.export.publish import publishing, refuse_existing
from edge.export.source import open_source
from edge.export.texts import Texts, foreign_warning, texts_for
from edge.find import load
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    from edge.export.planner.run import Plan
    from edge.export.verify import Verdict


@dataclass(frozen=True)
class Exported:
    """One bundle that was published: where it lies, its manifest, what the gate said, and the plan it came from."""

    folder: Path
    bundle: Bundle
    verdict: Verdict | None
    plan: Plan | None = None


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
    jobs = [job_of(format_name, quantization) for format_name in unique(formats)]
    packings = packings_of(also, jobs)
    jobs = able(jobs, lambda job: check_asked(job, exporter, kv), leave_out, progress)
    recipe = _recipe(distill, keep_experts)
    progress.start(f"opening {source}")
    checkpoint = open_source(source, progress=progress)
    made: dict[str, Any] = {}
    if recipe is not None:
        from edge.export.distill.run import distill as make_student

        student = make_student(checkpoint, recipe, progress)
        checkpoint, made = student.student, {"distilled": student.record}
    jobs = [job_of(job.format, quantization, checkpoint.family) for job in jobs]
    name = checked_name(name or checkpoint.name + (f"-{keep_experts}-experts" if keep_experts else "") + SHORT[kv])
    sight = sight_of(checkpoint)
    text = sight.split.text if sight else checkpoint

    def fits(job: Job) -> None:
        if sight:
            load(SEEING, job.format).check(checkpoint, sight.split, sight.rule)
        if kv is not None:
            job.module.narrow_element_bytes(text, calibrated=calibrate)
        if calibrate:
            refuse_calibration(checkpoint, job)

    jobs = able(jobs, fits, leave_out, progress)
    length = fitting_context(text, context_length)
    attention.check_frequencies(text, length)
    if not replace_existing and make is None:
        for job in jobs:
            refuse_existing(output / bundle_name(name, job))
    preflight.check(_need(checkpoint, jobs, gate, calibrate), output, time_limit_s=time_limit_s)
    looks = calibration is not None or make is not None or any(job.kind.calibrated for job in jobs)
    texts = texts_for(checkpoint, calibration, held_out, calibrate, sight if looks else None)
    if calibration is not None and texts.calibration is not None and (words := foreign_warning(text, texts, progress)):
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
    jobs = [job_of(format_name, quantization, checkpoint.family) for format_name in unique(formats)]
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
        needs += [load(SEEING, job.format).estimate(text, vision) for job in jobs]
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
    artifact = stages.quantized(job, order, progress)
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
        verdict = stages.judged(folder, draft, artifact, order, progress) if order.gate else None
        if verdict is not None and order.made:
            verdict = replace(verdict, record={**verdict.record, **order.made})
        if wrong := tuple(refuse(draft, verdict)):
            return Attempt(draft, verdict, wrong, None)
        if verdict is not None and not verdict.passed:
            return Attempt(draft, verdict, (), None)
        proven = draft if verdict is None else _proven(draft, verdict)
        bundle.write(proven, folder)
    return Attempt(proven, verdict, (), Exported(target, proven, verdict))


def _element_bytes(job: Job, artifact: Artifact) -> float:
    """Of an element of the KV cache."""
    narrow = artifact.plan.get("kv_cache")
    return float(narrow["element_bytes"]) if narrow else job.module.kv_element_bytes(artifact.quantization)


def _with_fewer_experts(
    checkpoint: Checkpoint, keep: int, texts: Texts, progress: Progress
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


def _proven(draft: Bundle, verdict: Verdict) -> Bundle:
    return replace(draft, proven=True, quality=verdict.record, selftest=verdict.selftest)


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
