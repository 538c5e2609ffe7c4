"""What this machine knows of itself: `--tools system`. All of it is the device's own word, and taints nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.runtimes.act.ran import Place, ToolError

SETTINGS = {"root": "/"}


def get_time(place: Place, settings: Mapping[str, Any]) -> str:
    """The date, the time, and the day of the week."""
    return place.now().strftime("%Y-%m-%d %H:%M, %A")


def get_memory(place: Place, settings: Mapping[str, Any]) -> str:
    """How much memory there is, and how much of it is free."""
    lines = _read(settings, "proc/meminfo").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return f"{kib['MemAvailable'] / 1024:.0f} MiB of {kib['MemTotal'] / 1024:.0f} MiB are free"


def get_disk(place: Place, settings: Mapping[str, Any]) -> str:
    """How much of the disk is free."""
    disk = shutil.disk_usage(settings["root"])
    return f"{disk.free / 2**30:.1f} GiB of {disk.total / 2**30:.1f} GiB are free"


def get_temperature(place: Place, settings: Mapping[str, Any]) -> str:
    """The processor's temperature."""
    zones = sorted(Path(settings["root"], "sys/class/thermal").glob("thermal_zone*/temp"))
    for zone in zones:
        try:
            return f"{int(zone.read_text()) / 1000:.1f} °C"
        except (OSError, ValueError):
            continue
    raise ToolError("this machine does not tell its temperature")


def get_load(place: Place, settings: Mapping[str, Any]) -> str:
    """How busy it is, and for how long it has been up."""
    busy = _read(settings, "proc/loadavg").split()[0]
    up_s = int(float(_read(settings, "proc/uptime").split()[0]))
    days, hours, minutes = up_s // 86400, up_s // 3600 % 24, up_s // 60 % 60
    return f"load {busy} on {os.cpu_count()} cores, up for {days} days {hours} hours {minutes} minutes"


def get_battery(place: Place, settings: Mapping[str, Any]) -> str:
    """The battery's charge."""
    for supply in sorted(Path(settings["root"], "sys/class/power_supply").glob("*/capacity")):
        try:
            status = supply.with_name("status").read_text().strip().lower()
            return f"{int(supply.read_text())} %, {status if status.isprintable() else 'in an unknown state'}"
        except (OSError, ValueError):
            continue
    raise ToolError("this machine has no battery")


def get_machine(place: Place, settings: Mapping[str, Any]) -> str:
    """What machine this is."""
    model = Path(settings["root"], "proc/device-tree/model")
    name = model.read_text().strip("\0\n") if model.is_file() else platform.machine()
    return f"{name}, {platform.system()} {platform.release()}"


FUNCTIONS = (get_time, get_memory, get_disk, get_temperature, get_load, get_battery, get_machine)


def _read(settings: Mapping[str, Any], path: str) -> str:
    try:
        return Path(settings["root"], path).read_text(encoding="ascii")
    except (OSError, ValueError) as err:
        raise ToolError(f"this machine does not tell: /{path} cannot be read") from err
