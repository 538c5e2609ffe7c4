"""Pins of a Raspberry Pi: `--tools gpio`; by name when a manifest gives them names.

    [toolsets]
    gpio = { pins = { lamp = 17, door = 27 } }

On Raspberry Pi OS the `pinctrl` program does it. Where there is none, pins are simulated: what is set is kept in a file
and read back, and every answer says that it is simulated.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.runtimes.act.ran import Place, ToolError

SETTINGS: dict[str, Any] = {"pins": {}}
_PINS = range(28)  # those of the 40-pin header
_RUN_S = 5.0
# "17: op -- pd | hi // GPIO17 = output"
_STATE = re.compile(r"^\s*\d+:\s*(\S+)\s.*\|\s*(hi|lo)\b", re.MULTILINE)


def read_pin(place: Place, settings: Mapping[str, Any], pin: str) -> str:
    """Whether a pin is on or off."""
    number = _number(settings, pin)
    if _real():
        found = _STATE.search(_pinctrl("get", str(number)))
        if not found:
            raise ToolError(f"pinctrl does not say what pin {number} is")
        return f"{pin} is {'on' if found[2] == 'hi' else 'off'}"
    return f"{pin} is {_pretended(place).get(str(number), 'off')} (simulated: this machine has no pins)"


def set_pin(place: Place, settings: Mapping[str, Any], pin: str, state: str) -> str:
    """Make a pin an output and switch it on or off."""
    number = _number(settings, pin)
    if _real():
        _pinctrl("set", str(number), "op", "dh" if state == "on" else "dl")
        return f"{pin} is {state}"
    path = place.state / "pins.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({**_pretended(place), str(number): state}))
    os.replace(part, path)
    return f"{pin} is {state} (simulated: this machine has no pins)"


FUNCTIONS = (read_pin, set_pin)


def _number(settings: Mapping[str, Any], pin: str) -> int:
    pins = settings["pins"]
    if not isinstance(pins, dict) or not all(number in _PINS for number in pins.values()):
        raise InputError(f"pins of gpio must be a table of numbers from 0 to 27, not {pins!r}")
    if pin in pins:
        return pins[pin]
    # With names given, the others are none of the model's business.
    if pins or not pin.isdecimal() or int(pin) not in _PINS:
        raise ToolError(f"there is no pin {pin!r}; there are: {', '.join(pins) or '0 to 27'}")
    return int(pin)


def _real() -> bool:
    return shutil.which("pinctrl") is not None


def _pinctrl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["pinctrl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_S, check=False,
            start_new_session=True,  # Ctrl-C ends no step in its middle
        )  # fmt: skip
    except subprocess.TimeoutExpired as err:
        raise ToolError("pinctrl does not end") from err
    if done.returncode:
        raise ToolError(f"pinctrl failed: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


def _pretended(place: Place) -> dict[str, str]:
    path = Path(place.state, "pins.json")
    return json.loads(path.read_text()) if path.is_file() else {}
