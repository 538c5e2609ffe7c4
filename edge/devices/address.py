"""An address as people type it -> a device: `ssh://pi@host`, `adb:SERIAL`, `local`, or a name of the device file."""

from __future__ import annotations

from typing import cast

from edge.devices.device import Device
from edge.errors import UsageError
from edge.find import load, names

KINDS = "edge.devices.kinds"


def connect(address: str) -> Device:
    """The device at `address`; only kinds that keep a connection reach for it now.

    Raises `UsageError` for a kind that is not there.

    >>> connect("local").address
    'local'
    """
    kind, colon, rest = address.partition(":")
    if kind not in names(KINDS):
        raise UsageError(
            f"there is no device {address!r}",
            hint="give ssh://user@host, adb:SERIAL, local, or a name of your device file; "
            f"kinds: {', '.join(names(KINDS))}",
        )
    found = load(KINDS, kind).connect(rest.removeprefix("//") if colon else "")
    return cast(Device, found)
