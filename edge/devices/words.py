"""What a worker on a device says over its pipes: a line of JSON each, and its end when there is none."""

from __future__ import annotations

import json
from typing import Any

from edge.devices.device import Stream
from edge.errors import DeviceError, EdgeError, GateError, UsageError

_ERRORS = {2: UsageError, 3: GateError, 4: DeviceError}


def line(stream: Stream, where: str, timeout_s: float) -> dict[str, Any]:
    """The next thing that it says. Raises `DeviceError` when it has ended, or says what makes no sense."""
    said = stream.readline(timeout_s)
    if not said:
        done = stream.finish()
        raise died(where, done.code, done.reason)
    try:
        found = json.loads(said)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DeviceError(f"{where}: the worker answers {said[:80]!r}, which is no answer", hint="flash it again")
    return found


def said_well(said: dict[str, Any], where: str) -> None:
    """Raises what went wrong there, in its own words."""
    if "error" in said:
        kind = _ERRORS.get(int(said.get("code") or 1), EdgeError)
        raise kind(f"{where}: {said['error']}", hint=said.get("hint"))


def died(where: str, code: int, reason: str) -> EdgeError:
    """Why it has ended, from its exit code and its last words."""
    if code == 137:
        return DeviceError(
            f"{where}: the model was killed there, most likely for want of memory", hint="ask for a shorter --context"
        )
    return DeviceError(f"{where}: the model ended there: {reason}", hint="see what is the matter: edge fsck DEVICE")
