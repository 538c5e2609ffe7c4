"""The user's device file: names for addresses, and groups of them.

# ~/.config/edge/devices.toml
[kitchen]
address = "ssh://pi@kitchen.local"
groups = ["home"]
root = "/srv/edge"                  # where its store lies (default: the user's own place)
python = "/srv/venv/bin/python"     # an interpreter there that has the runtimes
key = "base64..."                   # take bundles of this key only
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.devices import address
from edge.devices.device import Device
from edge.errors import InputError, UsageError

_KEYS = {"address": str, "groups": list, "root": str, "python": str, "key": str}


@dataclass(frozen=True)
class Target:
    """A device as the user means it: what it is called, its address, and what is set for it."""

    name: str
    address: str
    groups: tuple[str, ...] = ()
    root: str | None = None
    python: str = ""
    key: str | None = None

    def connect(self) -> Device:
        """The device, with what is set for it in place of its defaults."""
        device = address.connect(self.address)
        device.root = self.root or device.root
        device.python = self.python or device.python
        return device


def place() -> Path:
    """`$EDGE_DEVICES`, or `edge/devices.toml` in the user's folder of configurations."""
    given = os.environ.get("EDGE_DEVICES")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(given) if given else Path(config) / "edge" / "devices.toml"


def read(path: Path | None = None) -> Mapping[str, Target]:
    """Every device of the file by name; none when there is no file. Raises `InputError` where it makes no sense."""
    path = path or place()
    if not path.is_file():
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise InputError(f"{path} is no TOML: {err}") from err
    return {name: _target(path, name, fields) for name, fields in data.items()}


def _target(path: Path, name: str, fields: Any) -> Target:
    if not isinstance(fields, dict) or not isinstance(fields.get("address"), str):
        raise InputError(f"{path}: [{name}] lacks its address", hint='as: address = "ssh://pi@raspberrypi"')
    for key, value in fields.items():
        if key not in _KEYS or not isinstance(value, _KEYS[key]):
            raise InputError(f"{path}: [{name}] has {key} = {value!r}", hint=f"there are: {', '.join(_KEYS)}")
    groups = tuple(str(g) for g in fields.get("groups", ()))
    return Target(name, fields["address"], groups, fields.get("root"), fields.get("python", ""), fields.get("key"))


def find(names: Sequence[str], *, every: bool = False, group: str | None = None) -> tuple[Target, ...]:
    """The devices that are meant: names of the file, addresses, a group, or all of the file.

    Raises `UsageError` when nothing is meant, or a group has no devices.
    """
    known = read()
    if every or group is not None:
        if names:
            raise UsageError("give devices, or --all, or --group")
        found = tuple(t for t in known.values() if every or group in t.groups)
        if not found:
            what = "has no devices" if every else f"has no device of group {group!r}"
            raise UsageError(
                f"{place()} {what}", hint='as: [kitchen] with address = "ssh://pi@kitchen" and groups = ["home"]'
            )
        return found
    if not names:
        raise UsageError(
            "no device was given", hint="as: ssh://pi@raspberrypi, adb:SERIAL, local; edge devices lists yours"
        )
    return tuple(known.get(name) or Target(name, name) for name in dict.fromkeys(names))
