"""Bundles within a budget: the pipeline's stages, with the planner choosing what they make.

>>> import edge
>>> from edge.export.planner.budget import Budget
>>> from edge.export.within import within
>>> make = within(Budget(max_size_bytes=100_000_000), expect=...)  # doctest: +SKIP
>>> [done] = edge.export("smollm2", formats=["gguf"], make=make)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edge import bundle
from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.export import families, pack, pipeline, stages
from edge.export.artifact import Artifact, Planned
from edge.export.order import Job, Order, bundle_name
from edge.export.pipeline import Exported, Maker
from edge.export.planner.budget import Budget
from edge.export.planner.front import Candidate
from edge.export.planner.run import Built, Expect, Impossible, Plan, Planner, Subject, fulfil, unheld
from edge.export.publish import refuse_existing
from edge.export.texts import measured_on
from edge.export.verify import Verdict
from edge.progress import Progress

_SEES = "its vision part keeps 16 bits: the bits of the rest are planned"
_NARROW = "what rounding keys and values costs is not in the estimate: the gate measures it"


def within(
    budget: Budget,
    expect: Expect,
    *,
    across: bool = False,
    dry_run: bool = False,
    show: Callable[[Plan], None] = lambda plan: None,
) -> Maker:
    """What makes bundles within `budget`; `expect` predicts speed and memory (`edge.devices.predict.expected`).

    Of each format one, or `across` all of them the best. `show` is given every plan that held, or with `dry_run` the
    one that would be built first; then nothing is built. Raises `BudgetError` when nothing fits; `show` is then given
    the plan that comes closest.
    """
    budget.check()

    def make(jobs: Sequence[Job], order: Order, progress: Progress) -> tuple[Exported, ...]:
        if across:
            planner = _across(jobs, order, expect, progress)
            found = _one(planner, jobs, order, budget, progress, show, dry_run=dry_run)
            return () if found is None else (found,)

        def one(job: Job) -> Exported | None:
            planner = Planner(_subject([job], order, progress), [job.format], expect, progress)
            return _one(planner, [job], order, budget, progress, show, dry_run=dry_run)

        return pipeline.each(jobs, one)

    return make


def _one(
    planner: Planner, jobs: Sequence[Job], order: Order, budget: Budget, progress: Progress,
    show: Callable[[Plan], None], *, dry_run: bool,
) -> Exported | None:  # fmt: skip
    by_format = {job.format: job for job in jobs}

    def build(candidate: Candidate, planned: Planned | None, plan: Plan) -> Built:
        record = {k: v for k, v in plan.record().items() if k in ("budget", "chosen", "why", "candidates")}
        name = planned.kind.name if planned else candidate.mix.name
        job = replace(by_format[candidate.format], quantization=name, planned=planned, budget=record)
        if not order.replace_existing:
            refuse_existing(order.output / bundle_name(order.name, job))

        def refuse(draft: Bundle, verdict: Verdict | None) -> list[str]:
            return unheld(budget, draft.size_bytes, _measured(verdict)[1])

        made = pipeline.attempt(job, order, progress, refuse)
        failures = made.refused or (made.verdict.failures if made.verdict is not None else ())
        return Built(made.draft.size_bytes, *_measured(made.verdict), tuple(failures), made.exported)

    try:
        if dry_run:
            show(planner.plan(budget))
            return None
        plan, built = fulfil(planner, budget, build, progress)
    except Impossible as err:
        show(err.plan)
        raise
    show(plan)
    exported: Exported = built.published
    return replace(exported, plan=plan)


def _measured(verdict: Verdict | None) -> tuple[float | None, float | None]:
    """Mean KLD and the share of top tokens kept, if the gate came to measure them."""
    found = verdict.record.get("logits") if verdict is not None else None
    return (found["mean_kld"], found["same_top1"]) if isinstance(found, dict) else (None, None)


def _across(jobs: Sequence[Job], order: Order, expect: Expect, progress: Progress) -> Planner:
    """A planner over all formats that can be made of this checkpoint here; what cannot is said."""
    subject = _subject(jobs, order, progress)
    can = []
    for job in jobs:
        try:
            subject.full(job.format)
            subject.unvaried_bytes(job.format)
        except EdgeError as err:
            progress.say(f"{job.format} is left out: {err.message}")
            continue
        can.append(job.format)
    if not can:
        raise EdgeError(f"{order.checkpoint.name} can be converted to no format here")
    return Planner(subject, can, expect, progress)


def _subject(jobs: Sequence[Job], order: Order, progress: Progress) -> Subject:
    by_format = {job.format: job for job in jobs}

    def full(name: str) -> Artifact:
        return stages.full(by_format[name], order, progress)

    def draft(name: str) -> Bundle:
        return _draft(by_format[name], order)

    def unvaried_bytes(name: str) -> int:
        job = by_format[name]
        scales = getattr(job.module, "narrow_weights_bytes", lambda checkpoint: 0)(order.text) if order.kv else 0
        if order.sight is None:
            return int(scales)
        made = stages.vision(job, order, order.sight, progress)
        return int(scales) + sum((made.folder / file).stat().st_size for file in made.files)

    texts = order.texts
    return Subject(
        checkpoint=order.text,
        calibration=texts.calibration,
        measured_on=measured_on(order),
        context_length=order.context_length,
        full=full,
        beside_bytes=lambda name: pack.beside_bytes(full(name), order.checkpoint),
        draft=draft,
        unvaried_bytes=unvaried_bytes,
        notes=(*((_SEES,) if order.sight is not None else ()), *((_NARROW,) if order.kv is not None else ())),
    )


def _draft(job: Job, order: Order) -> Bundle:
    """A manifest without files, to predict from."""
    config: Any = order.text.text_config
    element_bytes = (
        job.module.kv_element_bytes("planned")
        if order.kv is None
        else job.module.narrow_element_bytes(order.text, calibrated=order.texts.calibration is not None)
    )
    kv = pack.kv_bytes_per_token(config, element_bytes)
    checkpoint = order.checkpoint
    return bundle.Bundle(
        name=order.name,
        family=checkpoint.family,
        format=job.format,
        quantization="planned",
        model_file="",
        context_length=order.context_length,
        vocab_size=0,
        stop_ids=(),
        source={
            "parameters": checkpoint.n_parameters,
            "facts": families.of(checkpoint.config, checkpoint.name).facts(checkpoint),
        },
        files=(),
        proven=False,
        memory={"kv_bytes_per_token": kv, "kv_bytes_at_context": kv * order.context_length},
    )
