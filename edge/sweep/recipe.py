"""What a sweep asks for, as a TOML file: lists, of which every combination becomes a cell.

models = ["smollm2", "./my-model"]      # what edge export takes; paths are below this file's folder
formats = ["gguf", "onnx"]              # or "all"; "auto" with a budget: whichever does best
quantizations = ["8bit", "4bit"]        # portable names, or a format's own, which others are not asked for
devices = ["pi4", "pi5", "this"]        # each cell is predicted for each

distill = ["none", "half"]              # recipes of edge distill
experts = ["none", 3]                   # how many of each layer are kept
kv = ["none", "8bit"]
context = 1024                          # the same for all cells, as these are: exporter, calibration, held-out

[[budget]]                              # planned for each device, beside the quantizations or instead of them
max-size = "90MB"
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.devices import profiles
from edge.devices.profiles import Known
from edge.errors import InputError, UsageError
from edge.export.artifact import portable
from edge.find import load, names
from edge.sweep.cell import AUTO, BOUNDS, Cell

HERE = "this"
NONE = "none"
_FORMATS = "edge.export.formats"
_LIMIT_BYTES = 1 << 20
_LISTS = ("models", "formats", "quantizations", "devices", "distill", "experts", "kv")
_ONE = ("context", "exporter", "calibration", "held-out")


@dataclass(frozen=True)
class Sweep:
    """The cells in the order in which they share most, and the devices: `None` is the machine one is at."""

    cells: tuple[Cell, ...]
    devices: Mapping[str, Known | None]
    left_out: tuple[str, ...] = ()


def read(path: Path) -> Sweep:
    """The sweep in a file. Raises `UsageError` for what makes no sense, `InputError` for what is no TOML."""
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise InputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB, which no sweep is")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(
            f"{path} cannot be read: {err.strerror}", hint="edge sweep --help shows what is in one"
        ) from err
    except ValueError as err:
        raise InputError(f"{path} is not sound TOML: {err}") from err
    return parse(data, path.resolve().parent)


def parse(data: Mapping[str, Any], folder: Path) -> Sweep:
    """A sweep from TOML's tables; paths are below `folder`. Raises as `read` does."""
    _check_keys(data, (*_LISTS, *_ONE, "budget"), "the sweep")
    lists = {name: _list(data, name) for name in _LISTS}
    models = [_place(str(m), folder) for m in _words(lists["models"], "models")]
    if not models:
        raise UsageError("the sweep names no model", hint='add a line such as: models = ["smollm2"]')
    devices = {name: _device(name, folder) for name in _words(lists["devices"], "devices")}
    budgets = [_bounds(table, bool(devices)) for table in _tables(data)]
    quantizations = _words(lists["quantizations"], "quantizations") or ([] if budgets else ["4bit"])
    formats = _formats(_words(lists["formats"], "formats") or ["gguf"], quantizations, bool(budgets))
    one = _settings(data, folder)
    axes = itertools.product(
        models,
        [_recipe(d, folder) for d in _optional(lists["distill"], str, "distill")],
        _optional(lists["experts"], int, "experts"),
        formats,
        _optional(lists["kv"], str, "kv"),
    )
    cells: list[Cell] = []
    left_out: list[str] = []
    for model, distill, experts, format_name, kv in axes:
        common: dict[str, Any] = {**one, "distill": distill, "experts": experts, "kv": kv}
        made = [Cell(model, format_name, q, **common) for q in quantizations if _knows(format_name, q)]
        for bounds in budgets:
            for device in devices or [None]:
                own = None if device is None else (device if devices[device] is None else _place(device, folder))
                made.append(Cell(model, format_name, bounds=bounds, device=own, **common))
        for cell in made:
            if why := _senseless(cell):
                left_out.append(f"{cell.label}: {why}")
            else:
                cells.append(cell)
    if not cells:
        raise UsageError("no cell of this sweep makes sense: " + "; ".join(dict.fromkeys(left_out)))
    return Sweep(tuple(dict.fromkeys(cells)), devices, tuple(dict.fromkeys(left_out)))


def _senseless(cell: Cell) -> str:
    """Why `edge export` would refuse a combination that lists alone bring about; empty if it would not."""
    if cell.kv is not None and cell.format != AUTO and not hasattr(load(_FORMATS, cell.format), "narrow_cache"):
        return f"{cell.format} has no KV cache of 8 bits"
    if cell.experts is not None and cell.distill is not None:
        return "both make another model of the source"
    return ""


def _formats(asked: Sequence[str], quantizations: Sequence[str], budgets: bool) -> list[str]:
    known = names(_FORMATS)
    found = list(dict.fromkeys(f for name in asked for f in (known if name == "all" else (name,))))
    for name in found:
        if name == AUTO:
            if not budgets:
                raise UsageError('formats = "auto" is for a budget', hint="add a table [[budget]], or name the formats")
            continue
        load(_FORMATS, name)
    for q in quantizations:
        if not any(_knows(name, q) for name in found):
            every = [word for name in found if name != AUTO for word in _quantizations(name)]
            raise UsageError(
                f"no format of this sweep has a quantization {q!r}",
                hint=_nearest(q, every) + f"there are: {', '.join(dict.fromkeys(every))}",
            )
    return found


def _knows(format_name: str, quantization: str) -> bool:
    return format_name != AUTO and quantization in _quantizations(format_name)


def _quantizations(format_name: str) -> list[str]:
    module = load(_FORMATS, format_name)
    return [*portable(module), *module.QUANTIZATIONS]


def _bounds(table: Mapping[str, Any], devices: bool) -> tuple[tuple[str, str | float], ...]:
    _check_keys(table, BOUNDS, "[[budget]]")
    for name, value in table.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise UsageError(f"[[budget]] {name}: wanted a number or a text such as 90MB, found {value!r}")
        if name == "min-tokens-per-second" and isinstance(value, str):
            raise UsageError(f"[[budget]] {name}: wanted a number, found {value!r}")
    if not table and not devices:
        raise UsageError("[[budget]] has no bound", hint=f"give one of: {', '.join(BOUNDS)}; or name devices")
    bounds = tuple((name, table[name]) for name in BOUNDS if name in table)
    Cell("", "", bounds=bounds).budget()
    return bounds


def _tables(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = data.get("budget", [])
    found = [found] if isinstance(found, Mapping) else found
    if not isinstance(found, list) or not all(isinstance(table, Mapping) for table in found):
        raise UsageError(f"budget: wanted a table, found {found!r}", hint="write [[budget]] and its bounds below it")
    return found


def _settings(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    context, exporter = data.get("context"), data.get("exporter")
    if context is not None and (not isinstance(context, int) or isinstance(context, bool) or context < 1):
        raise UsageError(f"context: wanted a whole number of tokens, found {context!r}")
    if exporter is not None and not isinstance(exporter, str):
        raise UsageError(f"exporter: wanted a name, found {exporter!r}")
    found: dict[str, Any] = {"context": context, "exporter": exporter}
    calibration = data.get("calibration")
    if calibration is False:
        found["calibrate"], calibration = False, None
    for key, name, value in (
        ("calibration", "calibration", calibration),
        ("held_out", "held-out", data.get("held-out")),
    ):
        if value is None:
            continue
        if not isinstance(value, str):
            raise UsageError(f"{name}: wanted the name of a text file, found {value!r}")
        if not (folder / value).is_file():
            raise UsageError(f"{name}: there is no file {folder / value}")
        found[key] = str(folder / value)
    return found


def _recipe(name: str | None, folder: Path) -> str | None:
    from edge.export.distill import recipe

    if name is None:
        return None
    place = _place(name, folder)
    recipe.read(place)  # it may be wrong
    return place


def _device(name: str, folder: Path) -> Known | None:
    return None if name == HERE else profiles.read(_place(name, folder))


def _place(name: str, folder: Path) -> str:
    """A path below `folder` if there is something, else the name as it is."""
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if name and path.exists() else name


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name, [])
    return list(dict.fromkeys(found if isinstance(found, list) else [found]))


def _words(values: Sequence[Any], name: str) -> list[str]:
    for value in values:
        if not isinstance(value, str) or not value:
            raise UsageError(f"{name}: wanted names, found {value!r}")
    return list(values)


def _optional(values: Sequence[Any], kind: type, name: str) -> list[Any]:
    """Values of one kind, or "none", which stands for nothing; without any, nothing alone."""
    for value in values:
        if value != NONE and (not isinstance(value, kind) or isinstance(value, bool) or value in ("", 0)):
            word = "whole numbers" if kind is int else "names"
            raise UsageError(f'{name}: wanted {word} or "none", found {value!r}')
    if name == "kv" and (wrong := [v for v in values if v not in (NONE, "8bit")]):
        raise UsageError(f"kv: there is no KV cache of {wrong[0]!r}", hint='there is: "none", "8bit"')
    return [None if value == NONE else value for value in values] or [None]


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(
                f"unknown key {key!r} in {where}", hint=f"{_nearest(key, known)}there are: {', '.join(known)}"
            )


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""
