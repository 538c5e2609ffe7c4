"""How a machine was before, while and after something ran on it, in words.

The records are those of `edge.profile.Conditions` and `edge.devices.facts.State`. What a machine does not tell is
"not measured".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

State = Mapping[str, Any]
NOT_MEASURED = "not measured"
_TAKEN = 0.05  # share of all processors' time in one repetition that is worth a remark
# PowerManager.THERMAL_STATUS_*; from "light" on the system slows the processor down.
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def thermal_word(status: int) -> str:
    """Android's own word for its thermal status.

    >>> thermal_word(2), thermal_word(9)
    ('moderate', '9')
    """
    return _THERMAL[status] if 0 <= status < len(_THERMAL) else str(status)


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("temperature", "temperature_c", "{:.0f} °C".format),
    ("processor's clock", "frequency_mhz", "{:.0f} MHz".format),
    ("governor", "governor", str),
    ("throttling", "throttled", str),
    ("Android's thermal status", "thermal_status", thermal_word),
    ("others' share of the processors", "others_share", lambda x: f"{100 * x:.0f} %"),
    ("the hypervisor's share", "stolen_share", lambda x: f"{100 * x:.0f} %"),
    ("free memory", "available_bytes", lambda n: f"{n / 1e9:.2f} GB"),
    ("load average", "load_average", str),
    ("battery", "battery_percent", "{} %".format),
    ("battery's state", "battery_status", str),
)


def rows(before: State, during: Sequence[State], after: State) -> list[tuple[str, str, str, str]]:
    """For each quantity: what it is, and what it was before, while it ran, and afterwards.

    >>> rows({"temperature_c": 50.1}, [{"temperature_c": 61.0}, {"temperature_c": 58.2}], {})[0]
    ('temperature', '50 °C', '58 °C to 61 °C', 'not measured')
    """
    return [
        (name, _said([before], key, words), _said(during, key, words), _said([after], key, words))
        for name, key, words in _ROWS
    ]


def _said(states: Sequence[State], key: str, words: Callable[[Any], str]) -> str:
    found = [state[key] for state in states if state.get(key) is not None]
    if not found:
        return NOT_MEASURED
    if any(isinstance(value, str) for value in found) or key == "thermal_status":
        return "; ".join(dict.fromkeys(words(value) for value in found))
    low, high = words(min(found)), words(max(found))
    return low if low == high else f"{low} to {high}"


def remarks(before: State, later: Sequence[State]) -> list[str]:
    """What speaks against the measurement that `later` was taken in: whoever was slowed down measured that.

    >>> remarks({"throttled": "no"}, [{"throttled": "throttled before"}])
    ['the device was slowed down meanwhile: throttled']
    """
    reasons: dict[str, None] = {}
    for state in later:
        # A Pi's firmware says what is so now, and what was so at some time since it started.
        known = str(before.get("throttled") or "no").split(", ")
        for said in str(state.get("throttled") or "no").split(", "):
            if said.endswith(" now") or (said.endswith(" before") and said not in known):
                reasons[said.rpartition(" ")[0]] = None
        if (state.get("thermal_status") or 0) > 0:
            reasons[f"Android's thermal status is {thermal_word(state['thermal_status'])}"] = None
    remarked = [f"the device was slowed down meanwhile: {', '.join(reasons)}"] if reasons else []
    for key, who in (("others_share", "other programs"), ("stolen_share", "the hypervisor")):
        most = max((state.get(key) or 0 for state in later), default=0)
        if most > _TAKEN:
            remarked.append(f"{who} took up to {100 * most:.0f} % of the processors meanwhile")
    return remarked
