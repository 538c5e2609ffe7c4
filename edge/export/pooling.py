"""How a checkpoint's states become one vector, where it was made for that: the files that Sentence Transformers keeps.

`modules.json` lists what follows the model (`1_Pooling`, `2_Normalize`); llama.cpp's converter reads the pooling there.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from edge.errors import InputError, UsageError

MODULES = "modules.json"
_HELD = ("Transformer", "Pooling", "Normalize")  # vectors have a length of 1 in any case
_LIMIT_BYTES = 1 << 20


def files(folder: Path) -> list[str]:
    """Those files that are there, by their paths below the checkpoint's folder.

    Raises `InputError` when they are damaged or lie outside it.
    """
    modules = _modules(folder)
    if not modules:
        return []
    paths = [PurePosixPath(str(m.get("path", "")), "config.json") for m in modules if _kind(m) == "Pooling"]
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{folder / MODULES} names a file outside its folder: {str(path)!r}")
    return [name for name in (MODULES, *map(str, paths)) if (folder / name).is_file()]


def check(folder: Path, name: str) -> None:
    """Raise `UsageError` for a checkpoint whose vectors are more than one pooling of its states."""
    modules = _modules(folder)
    if more := [_kind(m) for m in modules if _kind(m) not in _HELD]:
        raise UsageError(
            f"{name} puts its states through {more[0]} before they are a vector, which edge leaves out",
            hint=f"without {MODULES} it is exported as a model that makes text",
        )
    for path in files(folder)[1:]:
        found = _json(folder / path)
        modes = [key for key, value in found.items() if key.startswith("pooling_mode_") and value is True]
        if len(modes) > 1:
            raise UsageError(f"{name} joins several poolings ({', '.join(modes)}), and GGUF has room for one")


def _modules(folder: Path) -> list[dict[str, Any]]:
    if not (folder / MODULES).is_file():
        return []
    found = _json(folder / MODULES)
    if not isinstance(found, list) or not all(isinstance(m, dict) for m in found):
        raise InputError(f"{folder / MODULES} is no list of modules")
    return found


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _json(path: Path) -> Any:
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB, which no such file is")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is not sound JSON: {err}") from err
