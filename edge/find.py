"""The folder is the registry: a runtime, format, device, family or verb is one file.

A file `smollm2_moe.py` is called `smollm2-moe`, as people write names.

>>> "echo" in names("edge.runtimes.engines")
True
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from types import ModuleType

from edge.errors import UsageError

_ROOT = Path(__file__).parent


def names(package: str) -> tuple[str, ...]:
    """Every module in `package` by file name, sorted; nothing is imported."""
    folder = _ROOT.joinpath(*package.split(".")[1:])
    return tuple(sorted(p.stem.replace("_", "-") for p in folder.glob("*.py") if not p.stem.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import `package.name`, after checking the name against the listing.

    Raises `UsageError` naming what there is; an `ImportError` inside the module passes
    through, because it is a bug or a missing library, not a wrong name.
    """
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown {kind} {name!r}", hint=f"{hint}there are: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")
