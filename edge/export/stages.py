"""The steps of an export that take long, each kept in the cache under a hash of everything it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import bundle
from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.export import artifact as artifacts
from edge.export import cache
from edge.export.artifact import Artifact
from edge.export.order import FORMATS, SEEING, Job, Order, Sight
from edge.find import load
from edge.progress import Progress

if TYPE_CHECKING:
    from edge.export.verify import Verdict


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


def quantized(job: Job, order: Order, progress: Progress) -> Artifact:
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


def vision(job: Job, order: Order, sight: Sight, progress: Progress) -> Artifact:
    """The vision part, from the cache or made now: in 32 bits, or in 16 when the text part has fewer."""
    common = _of_vision(job, order, sight)
    return _stage(
        f"{job.format}-vision",
        cache.key(**common, libraries=cache.libraries()),
        lambda folder: load(SEEING, job.format).convert(
            order.checkpoint, sight.split, sight.rule, folder, half=common["half"], progress=progress
        ),
    )


def judged(folder: Path, draft: Bundle, artifact: Artifact, order: Order, progress: Progress) -> Verdict:
    """The gate's verdict; the one on the very same bytes, code and text is remembered."""
    from edge.export import verify as gate

    key = cache.key(
        bundle=bundle.to_json(draft),
        checkpoint=order.checkpoint.id,
        held_out=order.texts.held_out.sha256,
        code=cache.code_of(gate.__name__),
        format=cache.code_of(f"{FORMATS}.{artifact.format}"),
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


def _join(job: Job, order: Order, sight: Sight, text: Artifact, text_key: str, progress: Progress) -> Artifact:
    """The text part and the vision part as one."""
    module = load(SEEING, job.format)
    return _stage(
        f"{job.format}-joined",
        cache.key(**_of_vision(job, order, sight), text=text_key),
        lambda folder: module.join(
            text, vision(job, order, sight, progress), order.checkpoint, sight.split, sight.rule, folder
        ),
    )


def _of_vision(job: Job, order: Order, sight: Sight) -> dict[str, Any]:
    """What the vision part depends on."""
    code = cache.code_of(f"{SEEING}.{job.format}")
    return {"checkpoint": order.checkpoint.id, "rule": sight.rule, "code": code, "half": job.kind.bits < 32}


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
