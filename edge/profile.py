"""DeviceProfile: what a machine is, as far as it decides what runs there and how fast.

Facts are files below `/proc` and `/sys` and a pure parser for each, so that they can be read from
another root: a captured tree in a test, a device's own behind an emulator.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Instruction sets that decide which kernels a runtime picks, in the words of /proc/cpuinfo.
_FEATURES = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8",
    "neon", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "atomics",
)  # fmt: skip


@dataclass(frozen=True)
class DeviceProfile:
    """What does not change between two runs; bytes and counts, `None` for what cannot be told."""

    machine: str
    cpu: str
    physical_cores: int
    logical_cores: int
    features: tuple[str, ...]
    ram_bytes: int | None
    page_bytes: int
    kernel: str
    governor: str | None
    virtual: bool

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "features": list(self.features)}


@dataclass(frozen=True)
class Conditions:
    """What changes while something runs: load average over a minute, free memory, temperature in degrees Celsius.

    `throttled` is in the words of `throttled_words`; `None` where nothing tells.
    """

    load_average: float | None
    available_bytes: int | None
    temperature_c: float | None
    frequency_mhz: float | None
    governor: str | None = None
    throttled: str | None = None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def this_machine(root: Path = Path("/")) -> DeviceProfile:
    """Read the facts below `root`; none of them is required."""
    cpuinfo = _text(root / "proc/cpuinfo")
    memory = meminfo(_text(root / "proc/meminfo"))
    physical, logical = core_counts(cpuinfo)
    return DeviceProfile(
        machine=platform.machine(),
        cpu=cpu_name(cpuinfo) or _text(root / "proc/device-tree/model").rstrip("\0\n") or platform.machine(),
        physical_cores=physical,
        logical_cores=logical,
        features=features(cpuinfo),
        ram_bytes=memory.get("MemTotal"),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        governor=_governor(root),
        virtual=bool(re.search(r"^flags\b.*\bhypervisor\b", cpuinfo, re.MULTILINE)),
    )


def conditions(root: Path = Path("/")) -> Conditions:
    """Read what is true now below `root`."""
    load = _text(root / "proc/loadavg").split()
    celsius = [
        int(text) / 1000
        for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
        if (text := _text(path).strip()).lstrip("-").isdigit()
    ]
    hertz = _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").strip()
    return Conditions(
        load_average=float(load[0]) if load else None,
        available_bytes=meminfo(_text(root / "proc/meminfo")).get("MemAvailable"),
        temperature_c=max(celsius, default=None),
        frequency_mhz=int(hertz) / 1000 if hertz.isdigit() else None,
        governor=_governor(root),
        throttled=_throttled() if root == Path("/") else None,
    )


def throttled_words(bits: int) -> str:
    """The Raspberry Pi firmware's bits in words: low ones are now, those 16 higher since it was started.

    >>> throttled_words(0x50005)
    'too little voltage now, throttled now, too little voltage before, throttled before'
    >>> throttled_words(0)
    'no'
    """
    names = ("too little voltage", "frequency capped", "throttled", "soft temperature limit")
    said = [f"{name} {when}" for shift, when in ((0, "now"), (16, "before")) for i, name in enumerate(names)
            if bits >> (shift + i) & 1]  # fmt: skip
    return ", ".join(said) or "no"


def meminfo(text: str) -> Mapping[str, int]:
    """`/proc/meminfo` (and `/proc/PID/status`) in bytes.

    >>> meminfo("MemTotal:       16 kB\\nHugePages_Total:   0\\n")
    {'MemTotal': 16384}
    """
    return {key: int(kib) << 10 for key, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def cpu_name(cpuinfo: str) -> str:
    """The processor's own name, from an x86 or arm64 `/proc/cpuinfo`; empty when it gives none."""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def core_counts(cpuinfo: str) -> tuple[int, int]:
    """Physical and logical cores; hyper-threads of one core count once among the physical ones."""
    logical = max(1, len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)))
    cores = set()
    for block in cpuinfo.split("\n\n"):
        ids = dict(re.findall(r"^(physical id|core id)\s*:\s*(\d+)$", block, re.MULTILINE))
        if len(ids) == 2:
            cores.add((ids["physical id"], ids["core id"]))
    return len(cores) or logical, logical


def features(cpuinfo: str) -> tuple[str, ...]:
    """Those of the known instruction sets that the processor says it has."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    have = set(found[1].split()) if found else set()
    return tuple(name for name in _FEATURES if name in have)


def _governor(root: Path) -> str | None:
    return _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def _throttled() -> str | None:
    """What a Raspberry Pi's firmware says; nothing else tells it as plainly."""
    if shutil.which("vcgencmd") is None:
        return None
    try:
        said = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", said.stdout)
    return throttled_words(int(found[1], 16)) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
