"""Write a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from edge.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path`; what was there stays until the new file is complete."""
    path = path.expanduser()
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give -o the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
