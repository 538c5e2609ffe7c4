"""The part of edge that runs on a device: what is below `runtimes` and `readers`, and what those stand on."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[1]
_FILES = ("__init__", "bundle", "cache", "errors", "find", "measurement", "profile")
_ROOMS = ("runtimes", "readers")


def files() -> dict[str, Path]:
    """Every file, by its path there (`edge/bundle.py`)."""
    found = [_ROOT / f"{name}.py" for name in _FILES]
    found += sorted(p for room in _ROOMS for p in (_ROOT / room).rglob("*.py"))
    return {f"edge/{path.relative_to(_ROOT).as_posix()}": path for path in found}
