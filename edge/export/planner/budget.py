"""What is asked for: bytes, memory, speed, agreement; any of them, all at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edge.errors import UsageError

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@dataclass(frozen=True)
class Budget:
    """Upper bounds in bytes, and lower bounds of tokens a second and of the share of top tokens kept."""

    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    min_tokens_per_s: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, f.name) is not None for f in fields(self))

    def check(self) -> None:
        """Raise `UsageError` for bounds that exclude each other before anything is measured."""
        size, memory = self.max_size_bytes, self.max_memory_bytes
        for name, value in (("--max-size", size), ("--max-memory", memory)):
            if value is not None and value <= 0:
                raise UsageError(f"{name} leaves no byte", hint="give it a size such as 600MB")
        if self.min_tokens_per_s is not None and not 0 < self.min_tokens_per_s < float("inf"):
            raise UsageError(f"--min-tokens-per-second must be above 0, found {self.min_tokens_per_s:g}")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise UsageError(f"--min-agreement is a share between 0 and 1, found {self.min_agreement:g}")

    def record(self) -> dict[str, Any]:
        """As JSON: what was asked for, nothing else."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def size(text: str) -> int:
    """Bytes of a size with its unit.

    Raises `UsageError` for what is none.

    >>> size("600MB"), size("1.5 GiB"), size("4096")
    (600000000, 1610612736, 4096)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = None if found is None else _UNITS.get(found[2] or "b")
    if found is None or unit is None:
        raise UsageError(f"{text!r} is no size", hint="give a number with a unit: 600MB, 1.5GB, 512MiB")
    return int(float(found[1]) * unit)


def share(text: str) -> float:
    """A share, given as one or as a percentage.

    Raises `UsageError` for what is none.

    >>> share("0.97"), share("97%")
    (0.97, 0.97)
    """
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    if found is None:
        raise UsageError(f"{text!r} is no share", hint="give one such as 0.97 or 97%")
    return float(found[1]) / (100 if found[2] else 1)


def missed(budget: Budget, have: Mapping[str, float | None]) -> dict[str, float]:
    """By how much each bound that is not held is missed, relative to it; a value that is not known misses by far.

    `have` is keyed as the budget's fields; what it leaves out is not judged. A relative distance lets bytes be compared
    with tokens a second. The share of top tokens is compared by what is lost of it: 0.96 for 0.98 misses by 1, for it
    errs twice as often.
    """
    out: dict[str, float] = {}
    for name, bound in budget.record().items():
        if name not in have:
            continue
        value = have[name]
        if value is None:
            by = float("inf")
        elif name == "min_agreement":
            by = (1 - value) / max(1e-6, 1 - bound) - 1
        elif name.startswith("max_"):
            by = value / bound - 1
        else:
            by = bound / value - 1 if value > 0 else float("inf")
        if by > 1e-9:
            out[name] = by
    return out
