"""An Android device over the `adb` program: `adb:SERIAL`, or `adb:` when there is one only; `adb:HOST:PORT` over Wi-Fi.

Programs run as Android's `shell` user, who owns little but /data/local/tmp. A key that the phone does not
know is never worked around: its owner confirms it on the screen.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.devices.device import STALL_S, Done, LinkLost
from edge.devices.needs import Need
from edge.devices.process import Process, receive, send
from edge.errors import DeviceError, MissingError, UsageError

_ROOT = "/data/local/tmp/edge"
_ASK_S = 30.0  # adb starts its server when it has to, and waits for a device over Wi-Fi for 10 s
_SETTLE_S = 5.0  # how long a device may take from "connecting" to a state that says something
NEED = Need("Android devices", ("adb",), "version", "apt-get install adb (macOS: brew install android-platform-tools)")
# adb 29 ends with 0 when the link breaks, others with 1 or 255, and so do programs. Only what stands at the end
# of standard error tells that the program ended, and how.
_WRAPPED = '"$@"; printf "%s%d." "$0" $? >&2'

# State in `adb devices` -> what it means, and what a person can do.
_STATES = {
    "unauthorized": (
        "the device does not trust this computer yet",
        "unlock it and confirm the question about USB debugging on its screen, then run the same command again",
    ),
    "offline": (
        "the device is known to adb, but does not answer",
        "wake it up, or unplug it and plug it in again; then run the same command again",
    ),
    "no permissions": (
        "this user may not speak to the device over USB",
        "on Linux: apt-get install android-sdk-platform-tools-common, join the group plugdev, plug it in again",
    ),
    "recovery": ("the device is in its recovery system", "start Android: adb reboot"),
    "sideload": ("the device waits for an update", "start Android: adb reboot"),
    "bootloader": ("the device is in its boot loader", "start Android: fastboot reboot"),
}
_PASSING = ("connecting", "authorizing")
_NETWORK = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9.-]+):\d{1,5}")


class Adb:
    """A device that the `adb` program reaches; which one is settled when it is first asked something."""

    def __init__(self, serial: str | None, address: str) -> None:
        self.address, self.root, self.python = address, _ROOT, ""
        self._wanted = serial
        self._serial: str | None = None  # reached, as far as we know

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        return self.open(argv).talk(stdin, timeout_s)

    def push(self, path: Path, remote: str) -> None:
        """Beside it, then one rename: `adb push` itself would remove what is there and write in its place.

        To a program over there a cable that is pulled looks like the end of the file, so it counts what came.
        """
        part = f"{remote}.{secrets.token_hex(4)}.part"
        move = 'cat > "$1" && [ "$(stat -c %s "$1")" = "$3" ] && mv -f "$1" "$2" || { rm -f "$1"; exit 1; }'
        send(self, ["sh", "-c", move, "sh", part, remote, str(path.stat().st_size)], path, remote)

    def pull(self, remote: str, path: Path) -> None:
        receive(self, remote, path)

    def open(self, argv: Sequence[str]) -> Process:
        if self._serial is None:
            self._serial = self._reach()
            self.address = f"adb:{self._serial}"  # "adb:" alone may mean another phone tomorrow
        # adb joins its words with spaces and hands them to the device's shell: one word, quoted here.
        mark = f"edge-{secrets.token_hex(8)}:"
        command = " ".join(map(shlex.quote, ["sh", "-c", _WRAPPED, mark, *argv]))
        return _Program(["adb", "-s", self._serial, "shell", "-T", command], self, mark.encode())

    def close(self) -> None:
        """Nothing is kept: the connection is that of adb's own server."""

    def lost(self) -> None:
        """Look again next time: its state may say more."""
        self._serial = None

    def _reach(self) -> str:
        """The serial of a device that answers. Raises `LinkLost` or `DeviceError` with what a person can do."""
        if shutil.which("adb") is None:
            raise MissingError(
                f"{self.address} is reached by the program adb, which is not installed",
                hint=f"install it: {NEED.install}",
            )
        states = self._states()
        serial = self._choose(states)
        if states.get(serial) == "offline" or serial not in states:
            self._connect(serial)
            states = self._states()
        end = time.monotonic() + _SETTLE_S
        while states.get(serial) in _PASSING and time.monotonic() < end:
            time.sleep(0.2)
            states = self._states()
        state = states.get(serial, "offline")
        if state == "device":
            return serial
        meaning, hint = _STATES.get(state, (f"adb says it is {state!r}", "look with: adb devices -l"))
        raise LinkLost(f"adb:{serial}: {meaning}", hint=hint)

    def _choose(self, states: Mapping[str, str]) -> str:
        """Which of those in `states`; a `HOST:PORT` may be a new one."""
        wanted = self._wanted or os.environ.get("ANDROID_SERIAL")
        seen = ", ".join(f"adb:{serial} ({state})" for serial, state in sorted(states.items()))
        if wanted:
            if wanted in states or _NETWORK.fullmatch(wanted):
                return wanted
            raise DeviceError(
                f"adb:{wanted}: adb sees no such device",
                hint=f"it sees {seen}" if seen else "it sees none; is the cable in, and USB debugging on?",
            )
        if not states:
            raise DeviceError(
                "adb sees no device",
                hint="plug the phone in and turn on USB debugging (Settings, Developer options); "
                "over Wi-Fi give its address: adb:HOST:PORT",
            )
        if len(states) > 1:
            raise DeviceError(f"adb sees {len(states)} devices: {seen}", hint="say which one, by its address")
        return next(iter(states))

    def _connect(self, serial: str) -> None:
        """A device over Wi-Fi is connected (anew): after it restarts, adb's server holds on to a dead connection."""
        if not _NETWORK.fullmatch(serial):
            return
        _adb("disconnect", serial)
        said = _adb("connect", serial)
        if not re.search(r"^(already )?connected to", said, re.MULTILINE) and "authenticate" not in said:
            reason = (said.strip().splitlines() or ["adb said nothing"])[-1]
            raise LinkLost(
                f"adb:{serial}: {reason:.200}", hint="is it on, on this network, and wireless debugging turned on?"
            )

    def _states(self) -> dict[str, str]:
        return states(_adb("devices"))


class _Program(Process):
    """A program on the device; `mark` stands before its exit code at the end of standard error."""

    def __init__(self, argv: Sequence[str], device: Adb, mark: bytes) -> None:
        super().__init__(argv, name=device.address)
        self._device, self._mark = device, mark

    def finish(self, timeout_s: float = STALL_S) -> Done:
        done = super().finish(timeout_s)
        err, mark, code = done.err.rpartition(self._mark)
        if mark and (found := re.match(rb"(\d+)\.", code)):
            return Done(int(found[1]), done.out, err)
        if done.code not in (0, 1, 255):
            return done  # something killed the shell that would have said it
        self._device.lost()
        last = (done.err.decode("utf-8", errors="replace").strip().splitlines() or ["adb ended"])[-1]
        raise LinkLost(
            f"{self._device.address}: the link broke: {last.removeprefix('error: '):.200}",
            hint="run the same command again: it goes on",
        )


def states(text: str) -> dict[str, str]:
    """Serial to state, from `adb devices`.

    >>> states("List of devices attached\\nR58M1\\tdevice\\nX1\\tno permissions (udev); see [...]\\n\\n")
    {'R58M1': 'device', 'X1': 'no permissions'}
    """
    return dict(re.findall(r"^(\S+)\t(no permissions|[a-z]+)", text, re.MULTILINE))


def connect(rest: str = "") -> Adb:
    """`rest` is a serial as `adb devices` shows it, or nothing. Nothing is reached for yet."""
    if rest.startswith("-") or any(c.isspace() or not c.isprintable() for c in rest):
        raise UsageError(
            f"adb:{rest} is no address", hint="give adb:SERIAL as `adb devices` shows it, or adb:HOST:PORT"
        )
    return Adb(rest or None, f"adb:{rest}")


def found() -> list[str]:
    """Addresses of the devices that adb's server knows; none when no server runs, for asking would start one."""
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
    except (OSError, ValueError):
        return []
    return [f"adb:{serial}" for serial in sorted(states(_adb("devices")))] if shutil.which("adb") else []


def _adb(*words: str) -> str:
    """What adb says; `LinkLost` when it does not end."""
    try:
        done = subprocess.run(
            ["adb", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LinkLost(
            f"adb {words[0]} does not answer for {_ASK_S:.0f} s", hint="start its server anew: adb kill-server"
        ) from None
    out, err = (text.decode("utf-8", errors="replace") for text in (done.stdout, done.stderr))
    if done.returncode != 0 and words[0] == "devices":
        said = (err.strip().splitlines() or ["it said nothing"])[-1]
        raise DeviceError(f"adb does not work here: {said:.200}", hint="look with: adb devices")
    return out + err
