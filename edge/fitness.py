"""Whether a machine is fit to be measured: what speaks against it, said before anything is measured.

A number from a machine that does something else as well is a number of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.conditions import thermal_word

_OTHERS = 0.15  # share of all processors' time; above it two threads of two do not get their cores
_A_FEW_OTHERS = 0.05
_STOLEN = 0.05
_LOAD = 0.5  # load average for each core, where nothing better is known
_LOW_BATTERY = 20


@dataclass(frozen=True)
class Fitness:
    """`against`: reasons not to measure; `passing`: those that may be gone in a moment; `notes`: to be known."""

    against: tuple[str, ...]
    passing: tuple[str, ...]
    notes: tuple[str, ...]


def judge(state: Mapping[str, Any], seen: Mapping[str, Any], *, cores: int, needs_bytes: int | None) -> Fitness:
    """From the record of a machine's conditions and what `edge.runtimes.noise` saw in a second of them.

    1. Other programs, or the hypervisor, must leave the processors alone. Where the kernel does not tell, the load
       average stands for it.
    2. It must not be slowed down now, by heat or by too little voltage.
    3. It must not be swapping, and hold the bundle without beginning to.

    >>> judge({}, {"others_share": 0.4}, cores=4, needs_bytes=None).against
    ('other programs use 40 % of the processors',)
    """
    passing, lasting, notes = [], [], []
    others, stolen = seen.get("others_share"), seen.get("stolen_share")
    if others is None:
        load = state.get("load_average") or 0
        if load > _LOAD * cores:
            passing.append(f"the machine is busy (load {load} on {cores} cores)")
    elif others > _OTHERS:
        passing.append(f"other programs use {others:.0%} of the processors".replace("%", " %"))
    elif others > _A_FEW_OTHERS:
        notes.append(f"other programs use {others:.0%} of the processors".replace("%", " %"))
    if (stolen or 0) > _STOLEN:
        passing.append(f"the hypervisor takes {stolen:.0%} of the processors' time".replace("%", " %"))
    if (seen.get("swapped_pages") or 0) > 0:
        passing.append("the machine is swapping")
    slow = [word for word in str(state.get("throttled") or "").split(", ") if word.endswith(" now")]
    if slow:
        passing.append(f"the machine is slowed down: {', '.join(slow)}")
    if (state.get("thermal_status") or 0) >= 2:
        passing.append(f"Android's thermal status is {thermal_word(state['thermal_status'])}")
    free = state.get("available_bytes")
    if free is not None and needs_bytes is not None and free < needs_bytes:
        lasting.append(f"{free / 1e6:.0f} MB of memory are free and {needs_bytes / 1e6:.0f} MB are needed")
    if state.get("governor") not in (None, "performance"):
        notes.append(f"the governor is {state['governor']}: the clock follows the load, and first tokens are slower")
    if state.get("battery_status") == "Discharging":
        percent = state.get("battery_percent")
        low = percent is not None and percent < _LOW_BATTERY
        notes.append(f"it runs on its battery{f' ({percent} %)' if low else ''}: many slow down to save it")
    return Fitness((*lasting, *passing), tuple(passing), tuple(notes))
