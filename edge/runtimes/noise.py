"""Who else uses the machine, and whether its clocks can be believed: two looks, and what lies between them.

The kernel counts the time of all processors in `/proc/stat`, and that of this process itself; what is left was others.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_JUMP_S = 0.2  # a clock that is steered (NTP) gains or loses half a thousandth, so a minute moves it 0.03 s


@dataclass(frozen=True)
class Look:
    """One moment: seconds of all processors since the start, this process' own, pages swapped, and three clocks."""

    total_s: float
    idle_s: float
    stolen_s: float
    own_s: float
    swapped_pages: int
    monotonic_s: float
    wall_s: float
    awake_and_asleep_s: float | None


def look(root: Path = Path("/")) -> Look:
    """Now. Where the kernel does not say, the counts are zero, and `between` says `None`."""
    total, idle, stolen = processors(_text(root / "proc/stat"))
    own = os.times()
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return Look(
        total_s=total,
        idle_s=idle,
        stolen_s=stolen,
        own_s=own.user + own.system + own.children_user + own.children_system,
        swapped_pages=sum(int(n) for n in re.findall(r"^pswp(?:in|out) (\d+)$", _text(root / "proc/vmstat"), re.M)),
        monotonic_s=time.monotonic(),
        wall_s=time.time(),
        awake_and_asleep_s=time.clock_gettime(boot) if boot is not None else None,
    )


def between(before: Look, after: Look) -> dict[str, Any]:
    """Shares of all processors' time that others used and that the hypervisor took, pages swapped, jumps of the clock.

    `None` is what cannot be told. A jump is in seconds, ahead or back; times are taken from the monotonic clock, which
    does not jump, so it spoils dates and nothing else. Seconds asleep are those of a laptop that was closed meanwhile.
    """
    total = after.total_s - before.total_s
    known = total > 0
    stolen = after.stolen_s - before.stolen_s
    busy = total - (after.idle_s - before.idle_s) - stolen
    spent = after.monotonic_s - before.monotonic_s
    jumped = after.wall_s - before.wall_s - spent
    asleep = 0.0
    if before.awake_and_asleep_s is not None and after.awake_and_asleep_s is not None:
        asleep = after.awake_and_asleep_s - before.awake_and_asleep_s - spent
    # A night's sleep moves the date and not the monotonic clock: that is no jump.
    jumped -= asleep
    return {
        "others_share": max(0.0, busy - (after.own_s - before.own_s)) / total if known else None,
        "stolen_share": max(0.0, stolen) / total if known else None,
        "swapped_pages": after.swapped_pages - before.swapped_pages,
        "clock_jumped_s": jumped if abs(jumped) > _JUMP_S else 0.0,
        "asleep_s": asleep if asleep > _JUMP_S else 0.0,
    }


def processors(stat: str) -> tuple[float, float, float]:
    """Seconds in all, idle, and taken by the hypervisor, from `/proc/stat`; zeros when it has no such line.

    >>> [round(s * os.sysconf("SC_CLK_TCK")) for s in processors("cpu  10 0 5 70 5 0 0 10 3 0\\n")]
    [100, 75, 10]
    """
    found = re.match(r"cpu +([\d ]+)", stat)
    if not found:
        return 0.0, 0.0, 0.0
    # user nice system idle iowait irq softirq steal; the guests' time after them is part of user's.
    ticks = [int(n) for n in found[1].split()[:8]] + [0] * 8
    each = os.sysconf("SC_CLK_TCK")
    return sum(ticks[:8]) / each, (ticks[3] + ticks[4]) / each, ticks[7] / each


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
