"""From cells to tasks: sources opened and hashed, what each export takes, and what it shares with others."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edge
from edge.errors import EdgeError
from edge.export import artifact, cache, pipeline, preflight, shown
from edge.export.artifact import Need
from edge.export.checkpoint import Checkpoint
from edge.export.source import open_source
from edge.find import load, names
from edge.progress import Progress
from edge.sweep.cell import AUTO, Cell

_FORMATS = "edge.export.formats"
Share = tuple[Any, ...]


@dataclass(frozen=True)
class Task:
    """A cell that can be started. `key` names its inputs, settings and code: a line with it need not be made again.

    `shares` are the things on its way that others need as well, so that nobody makes one twice at once.
    """

    cell: Cell
    key: str
    source: str
    need: Need
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True)
class Unfit:
    """A cell that cannot be started, and why."""

    cell: Cell
    key: str
    error: EdgeError


def prepare(cells: Sequence[Cell], progress: Progress) -> list[Task | Unfit]:
    """Each cell once, in its order; two names of one quantization are one cell."""
    opened: dict[str, Checkpoint | EdgeError] = {}
    found: dict[str, Task | Unfit] = {}
    for cell in cells:
        if cell.model not in opened:
            progress.start(f"opening {cell.model}")
            try:
                opened[cell.model] = open_source(cell.model, progress=progress)
            except EdgeError as err:
                opened[cell.model] = err
        source = opened[cell.model]
        try:
            if isinstance(source, EdgeError):
                raise source
            made: Task | Unfit = _task(cell, source)
        except EdgeError as err:
            made = Unfit(cell, cache.key(cell=cell.record(), edition=edition()), err)
        found.setdefault(made.key, made)
    return list(found.values())


@functools.cache
def edition() -> str:
    """Twenty hex digits over the code and libraries that cells are made with; every machine of a sweep has the same."""
    top = Path(edge.__file__).parent
    places = [top / name for name in ("export", "runtimes", "readers")]
    files = [p for place in places for p in place.rglob("*") if p.suffix in (".py", ".jsonl", ".txt", ".toml")]
    digest = hashlib.sha256()
    for path in sorted([*files, top / "sweep" / "cell_worker.py"]):
        digest.update(str(path.relative_to(top)).encode() + b"\0" + path.read_bytes())
    return cache.key(edge=edge.__version__, libraries=cache.libraries(), code=digest.hexdigest())


def _task(cell: Cell, source: Checkpoint) -> Task:
    formats = names(_FORMATS) if cell.format == AUTO else (cell.format,)
    if cell.quantization is not None:
        known_as = artifact.portable(load(_FORMATS, cell.format), source.family)
        cell = replace(cell, quantization=known_as.get(cell.quantization, cell.quantization))
    need = _need(cell.model, formats, cell.quantization or "8bit", cell.calibrate)
    if cell.planned:
        need = preflight.total([need, preflight.planning_need(source)])
    return Task(cell, _key(cell, source), source.id, need, _shares(cell, formats))


@functools.cache
def _need(model: str, formats: tuple[str, ...], quantization: str, calibrate: bool) -> Need:
    return pipeline.estimate(model, formats=formats, quantization=quantization, calibrate=calibrate)


def _key(cell: Cell, source: Checkpoint) -> str:
    """Files count by what is in them, not by where they lie."""
    said = cell.record() | {"model": source.id}
    for name in ("calibration", "held_out"):
        if path := getattr(cell, name):
            said[name] = shown.hash_of(Path(path))
    if cell.distill is not None:
        from edge.export.distill import recipe

        read = recipe.read(cell.distill)
        texts = [read.folder / name for name in (*read.text.files, read.text.held_out) if name]
        said["distill"] = [read.id, *(cache.hash_of(path) for path in texts if path.is_file())]
    if cell.device is not None and Path(cell.device).is_file():
        said["device"] = cache.hash_of(Path(cell.device))
    return cache.key(cell=said, edition=edition())


def _shares(cell: Cell, formats: Sequence[str]) -> tuple[Share, ...]:
    """The stages that exports keep, named by what they depend on among the cells of one sweep."""
    model = (cell.model, cell.distill, cell.experts, cell.calibration)
    found: list[Share] = [("source", cell.model), ("replies", *model, cell.held_out)]
    if cell.distill is not None or cell.experts is not None:
        found.append(("student", *model))
    calibrated = cell.planned or load(_FORMATS, cell.format).QUANTIZATIONS[cell.quantization].calibrated
    if cell.calibrate and calibrated:
        found.append(("activations", *model))
    if cell.planned:
        found.append(("sensitivity", *model))
        found += [("variety", name, *model, cell.context, cell.calibrate) for name in formats]
    found += [("full", name, *model, cell.context, cell.exporter) for name in formats]
    if not cell.planned:
        found.append(("quantized", cell.format, cell.quantization, *model, cell.context, cell.exporter))
    return tuple(found)
