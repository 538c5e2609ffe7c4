"""What is asked of one export: a job for each format, and what these have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError
from edge.export import artifact as artifacts
from edge.export import families, pack, preflight
from edge.export.artifact import Planned, Quantization
from edge.export.checkpoint import Checkpoint
from edge.find import load, names
from edge.progress import Progress

if TYPE_CHECKING:
    from edge.export.texts import Texts
    from edge.export.vision.split import Split

DEFAULT_CONTEXT_LENGTH = 2048
FORMATS = "edge.export.formats"
SEEING = "edge.export.vision.formats"
_PACKINGS = "edge.export.packings"
# What a bundle's name says of its KV cache.
SHORT = {None: "", "8bit": "-kv8"}


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
    texts: Texts
    gate: bool
    or_better: bool
    replace_existing: bool
    also: tuple[ModuleType, ...]
    made: dict[str, Any]
    exporter: str | None
    kv: str | None


def job_of(format_name: str, quantization: str, family: str | None = None) -> Job:
    """Raises `UsageError` for a quantization that the format does not have, by its own name or a portable one."""
    module = load(FORMATS, format_name)
    known_as = artifacts.portable(module, family)
    own = known_as.get(quantization, quantization)
    if own not in module.QUANTIZATIONS:
        known = ", ".join([*known_as, *module.QUANTIZATIONS])
        raise UsageError(f"{format_name} has no quantization {quantization!r}", hint=f"there are: {known}")
    return Job(module, format_name, own)


def able(jobs: Sequence[Job], check: Callable[[Job], None], leave_out: bool, progress: Progress) -> list[Job]:
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


def check_asked(job: Job, exporter: str | None, kv: str | None) -> None:
    """Raise `UsageError` for an exporter or a KV cache that the format does not have."""
    known = getattr(job.module, "EXPORTERS", ())
    if exporter is not None and exporter not in known:
        raise UsageError(
            f"{job.format} has no exporter {exporter!r}",
            hint=f"there are: {', '.join(known)}" if known else f"leave out --exporter: {job.format} has one only",
        )
    if kv not in SHORT:
        raise UsageError(f"there is no KV cache of {kv!r}", hint="there is: 8bit")
    if kv is not None and not hasattr(job.module, "narrow_cache"):
        raise UsageError(
            f"{job.format} has no KV cache of 8 bits: its runtime reads keys and values in float32",
            hint="leave out --kv, or choose another format",
        )


def refuse_calibration(checkpoint: Checkpoint, job: Job) -> None:
    """Raise `UsageError` for a calibration that goes over a matrix again and again, of a source read from disk."""
    carried = getattr(job.module, "carries_errors", lambda quantization: False)(job.quantization)
    if carried and not preflight.holds_source(checkpoint):
        raise UsageError(
            f"{job.format} {job.quantization} carries rounding errors over, for which the source must be in memory: "
            f"{4 * checkpoint.n_parameters / 1e9:.0f} GB in float32 are more than half of what is available",
            hint="leave the calibration out (--no-calibration), which rounds to nearest; or choose gguf, which "
            "calibrates layer by layer",
        )


def unique(formats: Iterable[str]) -> tuple[str, ...]:
    """Each format once, as they were asked for first; there must be one."""
    chosen = tuple(dict.fromkeys(formats))
    if not chosen:
        raise UsageError("no format was asked for", hint=f"there are: {', '.join(names(FORMATS))}")
    return chosen


def packings_of(also: Sequence[str], jobs: Sequence[Job]) -> tuple[ModuleType, ...]:
    """What writes files of other programs; each is made from one of the formats that were asked for."""
    found = tuple(load(_PACKINGS, name) for name in dict.fromkeys(also))
    for name, module in zip(dict.fromkeys(also), found, strict=True):
        if module.FORMAT not in {job.format for job in jobs}:
            raise UsageError(
                f"{name} is made from {module.FORMAT}, which was not asked for", hint=f"add --format {module.FORMAT}"
            )
    return found


def checked_name(name: str) -> str:
    """A name that is one folder name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", name):
        raise UsageError(
            f"{name!r} cannot be the name of a bundle",
            hint="give one with --name: letters, digits, dots, dashes, at most 100 of them",
        )
    return name


def bundle_name(name: str, job: Job) -> str:
    """The folder of the bundle that comes of `job`."""
    return f"{name}-{job.format}-{job.quantization}"


def fitting_context(checkpoint: Checkpoint, asked: int | None) -> int:
    """Tokens: what was asked for, if the model was made for it, or what is usual."""
    most = pack.model_context_length(checkpoint)
    if asked is None:
        return min(most, DEFAULT_CONTEXT_LENGTH)
    if not 0 < asked <= most:
        raise UsageError(f"a context of {asked} tokens was asked for; {checkpoint.name} was made for 1 to {most}")
    return asked


def sight_of(checkpoint: Checkpoint) -> Sight | None:
    """What makes a checkpoint of a family that sees more than text; its files are checked against each other here."""
    split = getattr(families.of(checkpoint.config, checkpoint.name), "split", None)
    if split is None:
        return None
    from edge.export.vision.rule import rule

    return Sight(split(checkpoint), rule(checkpoint))
