"""CPU levels: which instructions a pack for arm64 may use.

A program that uses one which the processor lacks dies with SIGILL. Only llama.cpp is built per level; the other
runtimes choose their kernels when they start.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edge.errors import UsageError


@dataclass(frozen=True)
class Level:
    """`march` in gcc's words; `needs` in those of /proc/cpuinfo."""

    name: str
    march: str
    needs: frozenset[str]
    about: str


LEVELS = {
    level.name: level
    for level in (
        Level("armv8.0", "armv8-a", frozenset({"asimd"}), "every 64-bit Arm: Raspberry Pi 3, 4, Zero 2"),
        Level(
            "armv8.2", "armv8.2-a+dotprod+fp16", frozenset({"asimd", "asimddp", "asimdhp"}),
            "with dot products: Raspberry Pi 5, phones since about 2018",
        ),
    )
}  # fmt: skip


def best(features: Collection[str]) -> Level:
    """The highest level that a processor with these `features` can run.

    >>> best({"asimd", "asimdhp"}).name
    'armv8.0'
    """
    return [level for level in LEVELS.values() if level.needs <= {*features, "asimd"}][-1]


def named(name: str) -> Level:
    """The level called `name`, or `UsageError` with those there are."""
    if name not in LEVELS:
        raise UsageError(f"there is no CPU level {name!r}", hint=f"there are: {', '.join(LEVELS)}")
    return LEVELS[name]
