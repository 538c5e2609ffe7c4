"""Amounts as people write them: `600MB`, `1.5 GiB`, `7d`."""

from __future__ import annotations

import re

from edge.errors import UsageError

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def n_bytes(text: str) -> int:
    """Bytes; a number alone is bytes.

    >>> n_bytes("600MB"), n_bytes("1.5 GiB")
    (600000000, 1610612736)

    Raises `UsageError` for what is no size.
    """
    return int(_read(text, _BYTES, "b", "a size", "600MB, 1.5GiB"))


def seconds(text: str) -> float:
    """Seconds; a number alone is seconds.

    >>> seconds("7d"), seconds("90 min")
    (604800.0, 5400.0)

    Raises `UsageError` for what is no length of time.
    """
    return _read(text, _SECONDS, "s", "a length of time", "90min, 12h, 7d")


def _read(text: str, units: dict[str, int], unit: str, what: str, examples: str) -> float:
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", text)
    factor = units.get((found[2] or unit).lower()) if found else None
    if found is None or factor is None:
        raise UsageError(f"{text!r} is not {what}", hint=f"write it like this: {examples}")
    return float(found[1]) * factor
