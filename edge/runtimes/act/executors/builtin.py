"""A function of edge: `builtin = "files.read_file"`, or `{ function = "files.read_file", folder = "/data" }`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.find import load
from edge.runtimes.act.bounded import bounded
from edge.runtimes.act.manifest import TOOLSETS, Tool
from edge.runtimes.act.ran import Arguments, Place, Ran
from edge.runtimes.act.schema import canonical
from edge.runtimes.act.words import cut


@dataclass(frozen=True)
class Builtin:
    """A function of a toolset, with the set's settings."""

    toolset: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def read(value: Any, *, folder: Path, where: str) -> Builtin:
    about = dict(value) if isinstance(value, dict) else {"function": value}
    word = about.pop("function", None)
    if not isinstance(word, str) or word.count(".") != 1:
        raise InputError(f"{where}: builtin must be like 'files.read_file', not {word!r}")
    toolset, function = word.split(".")
    module = load(TOOLSETS, toolset)
    known = {f.__name__ for f in module.FUNCTIONS}
    if function not in known:
        raise InputError(
            f"{where}: {toolset} has no function {function!r}", hint=f"there are: {', '.join(sorted(known))}"
        )
    if unknown := set(about) - set(module.SETTINGS):
        raise InputError(
            f"{where}: {toolset} has no setting {sorted(unknown)[0]!r}",
            hint=f"there are: {', '.join(module.SETTINGS) or 'none'}",
        )
    return settle(Builtin(toolset, function, module.SETTINGS), about, folder, where)


def settle(spec: Builtin, settings: Mapping[str, Any], folder: Path, where: str) -> Builtin:
    """`spec` with `settings`; a folder among them begins at `folder`. Raises `InputError` for one of another type."""
    for key, value in settings.items():
        kind = type(load(TOOLSETS, spec.toolset).SETTINGS[key])
        if not isinstance(value, kind):
            wanted = {"str": "a text", "list": "a list", "dict": "a table"}[kind.__name__]
            raise InputError(f"{where}: {key} of {spec.toolset} must be {wanted}, not {value!r}")
    made = {**spec.settings, **settings}
    for key in ("folder", "database"):
        if isinstance(made.get(key), str) and made[key]:
            made[key] = str(folder / os.path.expanduser(made[key]))
    return replace(spec, settings=made)


def describe(spec: Builtin, arguments: Arguments) -> str:
    where = spec.settings.get("folder") or spec.settings.get("database")
    return f"{spec.toolset}.{spec.function} {canonical(dict(arguments))}{f' in {where}' if where else ''}"


def run(tool: Tool, arguments: Arguments, place: Place) -> Ran:
    module = load(TOOLSETS, tool.run.toolset)
    function = next(f for f in module.FUNCTIONS if f.__name__ == tool.run.function)

    def call() -> Ran:
        # A file's name may be no text; that does not make a list of names one of no text.
        return Ran(True, function(place, tool.run.settings, **arguments).encode("utf-8", "replace"))

    ran = bounded(call, tool.timeout_s)
    if len(ran.output) > tool.output_bytes:
        ran = replace(ran, output=cut(ran.output, tool.output_bytes) + b"\n(cut off here)")
    return ran
