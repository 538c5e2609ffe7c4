"""What is known of devices without asking them: a TOML file for each, with where its figures are from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Known:
    """A device: memory in bytes, cores, and between which bounds bytes a second decoders (llama.cpp's) read there.

    `published` is whether those bounds come from published figures of that device; `source` says which.
    """

    name: str
    model: str
    ram_bytes: int
    system_bytes: int
    cores: int
    reached_low: float
    reached_high: float
    published: bool
    source: str


def names() -> list[str]:
    """All that ship."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read(name: str) -> Known:
    """A profile by name, or from a TOML file of one's own. Raises `UsageError` for neither, `InputError` for damage."""
    path = Path(name).expanduser() if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise UsageError(
            f"there is no profile of a device {name!r}",
            hint=f"there are {', '.join(names())}, and this (the machine you are at); or give a TOML file of your own",
        )
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise InputError(f"{path} is damaged: {err}") from err
    return _known(path, found)


def _known(path: Path, found: dict[str, Any]) -> Known:
    try:
        known = Known(
            name=path.stem,
            model=str(found["model"]),
            ram_bytes=int(found["ram_bytes"]),
            system_bytes=int(found["system_bytes"]),
            cores=int(found["cores"]),
            reached_low=float(found["reached_low_bytes_per_s"]),
            reached_high=float(found["reached_high_bytes_per_s"]),
            published=bool(found.get("published", False)),
            source=str(found.get("from", "its own file")),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(f"{path} is no profile of a device: {err!r}", hint=f"see {_FOLDER / 'pi5.toml'}") from err
    if not 0 < known.reached_low <= known.reached_high or known.ram_bytes <= 0:
        raise InputError(
            f"{path} is no profile of a device: its bounds make no sense", hint=f"see {_FOLDER / 'pi5.toml'}"
        )
    return known
