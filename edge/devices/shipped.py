"""The part of edge that runs on a device: the runtimes, the readers, what those stand on, and the server."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[1]
_FILES = ("__init__", "bundle", "cache", "errors", "find", "measurement", "profile")
_ROOMS = ("runtimes", "readers", "serve")
_ENDINGS = (".py", ".html", ".css", ".js")


def files() -> dict[str, Path]:
    """Every file, by its path there (`edge/bundle.py`)."""
    found = [_ROOT / f"{name}.py" for name in _FILES]
    found += sorted(p for room in _ROOMS for p in (_ROOT / room).rglob("*") if p.suffix in _ENDINGS)
    return {f"edge/{path.relative_to(_ROOT).as_posix()}": path for path in found}
