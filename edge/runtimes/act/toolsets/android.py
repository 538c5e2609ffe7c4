"""An Android device over adb: `--tools android`, or `android:SERIAL` when there are several.

It does what the device's own programs offer to others: intents that open something on the screen, where its owner sees
it. Nothing is called, sent or bought by them alone. On the device itself the same programs are run without adb.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from edge.runtimes.act.ran import Place, ToolError

SETTINGS = {"serial": ""}
_RUN_S = 20.0
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
_LEVEL = re.compile(r"^\s*level:\s*(\d+)", re.MULTILINE)
_KEYS = {"play_pause": "85", "next": "87", "previous": "88", "volume_up": "24", "volume_down": "25", "mute": "164"}


def read_battery(place: Place, settings: Mapping[str, Any]) -> str:
    """The phone's charge."""
    found = _LEVEL.search(_shell(settings, "dumpsys", "battery"))
    if not found:
        raise ToolError("the phone does not tell its charge")
    return f"{found[1]} %"


def list_apps(place: Place, settings: Mapping[str, Any]) -> str:
    """Apps that were installed on the phone."""
    lines = _shell(settings, "pm", "list", "packages", "-3").split()
    return "\n".join(sorted(line.removeprefix("package:") for line in lines)) or "none"


def open_app(place: Place, settings: Mapping[str, Any], app: str) -> str:
    """Open an app on the phone's screen."""
    if not _PACKAGE.fullmatch(app):
        raise ToolError(f"{app!r} is no package, like org.example.app")
    said = _shell(settings, "monkey", "-p", app, "-c", "android.intent.category.LAUNCHER", "1")
    if "No activities found" in said or "aborted" in said:
        raise ToolError(f"the phone has no app {app} that can be opened")
    return f"opened {app}"


def open_page(place: Place, settings: Mapping[str, Any], url: str) -> str:
    """Open a web page on the phone's screen."""
    if not re.match(r"https?://[^\s/]", url):
        raise ToolError(f"{url!r} is no address of a web page")
    _start(settings, "android.intent.action.VIEW", "-d", url)
    return f"opened {url}"


def dial_number(place: Place, settings: Mapping[str, Any], number: str) -> str:
    """Show a number in the phone's dialler; its owner calls."""
    digits = re.sub(r"[\s()/-]", "", number)
    if not re.fullmatch(r"\+?\d{2,20}", digits):
        raise ToolError(f"{number!r} is no telephone number")
    _start(settings, "android.intent.action.DIAL", "-d", f"tel:{digits}")
    return f"{digits} is in the dialler"


def write_message(place: Place, settings: Mapping[str, Any], number: str, text: str) -> str:
    """Show a message on the phone's screen, ready to be sent; its owner sends it."""
    digits = re.sub(r"[\s()/-]", "", number)
    if not re.fullmatch(r"\+?\d{2,20}", digits):
        raise ToolError(f"{number!r} is no telephone number")
    _start(settings, "android.intent.action.SENDTO", "-d", f"smsto:{digits}", "--es", "sms_body", text)
    return f"the message to {digits} waits to be sent"


def phone_alarm(place: Place, settings: Mapping[str, Any], hour: int, minute: int, label: str = "alarm") -> str:
    """Set an alarm on the phone."""
    extras = (
        "--ei",
        "android.intent.extra.alarm.HOUR",
        str(hour),
        "--ei",
        "android.intent.extra.alarm.MINUTES",
        str(minute),
    )
    named = ("--es", "android.intent.extra.alarm.MESSAGE", label)
    _start(settings, "android.intent.action.SET_ALARM", *extras, *named, *_UNSEEN)
    return f"the phone rings at {hour:02}:{minute:02}"


def phone_timer(place: Place, settings: Mapping[str, Any], seconds: int, label: str = "timer") -> str:
    """Set a timer on the phone."""
    length = ("--ei", "android.intent.extra.alarm.LENGTH", str(seconds))
    named = ("--es", "android.intent.extra.alarm.MESSAGE", label)
    _start(settings, "android.intent.action.SET_TIMER", *length, *named, *_UNSEEN)
    return f"the phone rings in {seconds} s"


def press_key(place: Place, settings: Mapping[str, Any], key: str) -> str:
    """Press a key for music or loudness."""
    _shell(settings, "input", "keyevent", _KEYS[key])
    return f"pressed {key}"


FUNCTIONS = (
    read_battery, list_apps, open_app, open_page, dial_number, write_message, phone_alarm, phone_timer, press_key,
)  # fmt: skip
_UNSEEN = ("--ez", "android.intent.extra.alarm.SKIP_UI", "true")


def _start(settings: Mapping[str, Any], action: str, *words: str) -> None:
    """`am start` ends with 0 even when nothing on the device can do it; what it prints tells."""
    said = _shell(settings, "am", "start", "-a", action, *words)
    if "Error" in said or "Exception" in said or "unable to resolve" in said:
        line = next((line for line in said.splitlines() if "Error" in line or "Exception" in line), said)
        raise ToolError(f"the phone cannot do that: {line.strip()[:200]}")


def _shell(settings: Mapping[str, Any], *words: str) -> str:
    if shutil.which("adb"):
        serial = ["-s", settings["serial"]] if settings["serial"] else []
        # Words become one line for the device's shell: quoted, they stay words.
        argv = ["adb", *serial, "shell", shlex.join(words)]
    elif shutil.which("am"):
        argv = list(words)
    else:
        raise ToolError("adb is not installed here, which reaches Android devices")
    try:
        # In a session of its own: Ctrl-C ends no step in its middle.
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_RUN_S, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired as err:
        raise ToolError(f"the phone does not answer within {_RUN_S:g} s") from err
    said = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise ToolError(f"the phone did not do it: {' '.join(said.split())[:200]}")
    return said
