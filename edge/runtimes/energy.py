"""Energy, from a source with a name or not at all.

Three kinds of source can be read without instruments: Intel's and AMD's energy counters (RAPL), the counter of the
board that a Raspberry Pi 5's power chip feeds, and a battery that is being emptied. What each counts is not the same (a
processor, a board, a whole phone), so its name always stands with the number.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NOT_MEASURED = "not measured"
_VCGENCMD_S = 5


@dataclass(frozen=True)
class Source:
    """`read` gives joules since some moment (`counts`), or watts now. `wraps_at` is where a counter begins again."""

    name: str
    counts: bool
    read: Callable[[], float | None]
    wraps_at: float = 0.0


def find(root: Path = Path("/")) -> Source | None:
    """The best source that this machine lets us read, or none."""
    return _rapl(root) or _power_chip() or _battery(root)


def joules(source: Source, readings: list[tuple[float, float]]) -> float | None:
    """Energy between the first and the last reading `(seconds, value)`; `None` for fewer than two.

    Counters are subtracted, with one turn over for each value lower than the one before; watts are summed over time as
    if they went straight from one reading to the next.

    >>> joules(Source("x", True, lambda: 0, wraps_at=100.0), [(0, 90.0), (1, 95.0), (2, 5.0)])
    15.0
    >>> joules(Source("x", False, lambda: 0), [(0, 4.0), (2, 6.0)])
    10.0
    """
    if len(readings) < 2:
        return None
    pairs = list(itertools.pairwise(readings))
    if source.counts:
        return sum(b - a if b >= a else b - a + source.wraps_at for (_, a), (_, b) in pairs)
    return sum((u - t) * (a + b) / 2 for (t, a), (u, b) in pairs)


def _rapl(root: Path) -> Source | None:
    """The processor packages' counters, which newer kernels let root alone read."""
    zones = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if _text(zone / "name").startswith("package") and _number(zone / "energy_uj") is not None
    ]
    if not zones:
        return None
    # Several packages turn over at different moments; the first is what a machine at the edge has.
    zone = zones[0]

    def read() -> float | None:
        found = _number(zone / "energy_uj")
        return None if found is None else found / 1e6

    most = (_number(zone / "max_energy_range_uj") or 0.0) / 1e6
    return Source(f"RAPL {_text(zone / 'name')} (processor)", True, read, most)


def _power_chip() -> Source | None:
    """A Raspberry Pi 5 tells the volts and amperes of each of its rails."""
    if shutil.which("vcgencmd") is None:
        return None

    def read() -> float | None:
        return rails_watts(_run("vcgencmd", "pmic_read_adc"))

    return Source("Raspberry Pi 5 power chip (board, without USB)", False, read) if read() else None


def _battery(root: Path) -> Source | None:
    for battery in sorted((root / "sys/class/power_supply").glob("*")):
        if _text(battery / "type") != "Battery" or _text(battery / "status") != "Discharging":
            continue

        def read(at: Path = battery) -> float | None:
            if _text(at / "status") != "Discharging":
                return None
            watts = _number(at / "power_now")
            if watts is not None:
                return abs(watts) / 1e6
            amperes, volts = _number(at / "current_now"), _number(at / "voltage_now")
            return None if amperes is None or volts is None else abs(amperes) * volts / 1e12

        if read():
            return Source(f"battery {battery.name} (whole machine)", False, read)
    return None


def rails_watts(text: str) -> float | None:
    """Watts over all rails of `vcgencmd pmic_read_adc`; `None` when it gives none.

    >>> rails_watts("  3V3_SYS_A current(1)=0.10000000A\\n 3V3_SYS_V volt(9)=3.30000000V\\n EXT5V_V volt(24)=5.1V\\n")
    0.33
    """
    amperes = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", text))
    volts = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", text))
    both = [float(amperes[rail]) * float(volts[rail]) for rail in amperes if rail in volts]
    return sum(both) if both else None


def _run(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=_VCGENCMD_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?\d+", text) else None
