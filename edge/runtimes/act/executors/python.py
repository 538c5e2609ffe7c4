"""A function of a Python module, in a process of its own: `python = "my_tools:set_light"`.

It is called with the arguments by their names; what it returns is the answer, a text as it is and all else as JSON. The
module is found in the manifest's folder, or where this Python finds its own. The process is confined like any program.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.runtimes.act import interpreter, program, reach
from edge.runtimes.act.manifest import Tool
from edge.runtimes.act.ran import Arguments, Place, Ran
from edge.runtimes.act.schema import canonical

_ENTRY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):([A-Za-z_][A-Za-z0-9_]*)")
_WORKER = Path(__file__).parents[1] / "python_worker.py"


@dataclass(frozen=True)
class Entry:
    """A function, its module, and the folder where modules are looked for first."""

    module: str
    function: str
    folder: str


def read(value: Any, *, folder: Path, where: str) -> Entry:
    found = _ENTRY.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise InputError(f"{where}: python must be like 'module:function', not {value!r}")
    return Entry(found[1], found[2], str(folder))


def describe(spec: Entry, arguments: Arguments) -> str:
    return f"call {spec.module}:{spec.function} {canonical(dict(arguments))}"


def run(tool: Tool, arguments: Arguments, place: Place) -> Ran:
    spec: Entry = tool.run
    homes = [sys.prefix, sys.base_prefix, *(path for path in sys.path if path and Path(path).exists())]
    paths = replace(tool.paths, read=(*tool.paths.read, spec.folder, str(_WORKER), *homes))
    found = [path for path in sys.path if path]
    wanted = {"module": spec.module, "function": spec.function, "path": [spec.folder, *found]}
    given = json.dumps({**wanted, "arguments": reach.settled(tool, arguments)}).encode()
    return program.run(
        [*interpreter.argv(), "-I", str(_WORKER)], paths=paths, network=tool.network,
        timeout_s=tool.timeout_s, memory_bytes=tool.memory_bytes, output_bytes=tool.output_bytes, stdin=given,
    )  # fmt: skip
