"""The part of edge that runs on a device: runtimes, readers, what those stand on, the server, and `edge act`."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[1]
_FILES = (
    "__init__", "bundle", "cache", "errors", "find", "measurement", "profile",
    "__main__", "cli", "commands/__init__", "commands/act", "chat/__init__", "chat/acting", "chat/line", "chat/screen",
)  # fmt: skip
_ROOMS = ("runtimes", "readers", "serve")
_ENDINGS = (".py", ".toml", ".html", ".css", ".js")


def files() -> dict[str, Path]:
    """Every file, by its path there (`edge/bundle.py`)."""
    found = [_ROOT / f"{name}.py" for name in _FILES]
    found += sorted(p for room in _ROOMS for p in (_ROOT / room).rglob("*") if p.suffix in _ENDINGS)
    return {f"edge/{path.relative_to(_ROOT).as_posix()}": path for path in found}
