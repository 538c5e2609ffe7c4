"""What starts next, and where: nothing that is being made is made a second time, and no more than memory holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edge.sweep.prepare import Share, Task


@dataclass(frozen=True)
class Place:
    """Where cells run: this machine, or a worker of a cluster. `cache` names the cache that is used there."""

    name: str
    cache: str
    cores: tuple[int, ...]
    seats: int
    ram_bytes: int | None = None


@dataclass(frozen=True)
class Running:
    """A task that was started at a place, on some of its cores."""

    task: Task
    place: Place
    cores: tuple[int, ...]


def next_start(
    waiting: Sequence[Task], running: Collection[Running], places: Sequence[Place], made: Mapping[str, set[Share]]
) -> Running | None:
    """The next task to start, `None` if none can now. `made` are the shared things that lie in each cache.

    1. A task waits while another one at the same cache makes something that both need.
    2. Tasks that run together take no more memory than their place has; one alone is left to its own preflight.
    3. What others have made there goes first, and what others are making elsewhere goes last.
    4. The cores that are free are shared among those that can start now.
    """
    most = max((place.ram_bytes or 0 for place in places), default=0)
    for place in sorted(places, key=lambda p: (sum(r.place.name == p.name for r in running), p.name)):
        here = [r for r in running if r.place.name == place.name]
        free = place.seats - len(here)
        if free <= 0:
            continue
        has = made.get(place.cache, set())
        making = {s for r in running if r.place.cache == place.cache for s in r.task.shares} - has
        used = sum(r.task.need.ram_bytes for r in here)
        can = [
            task for task in waiting
            if not making & set(task.shares)  # Rule 1
            and _fits(task, place, used, bool(here), most)  # Rule 2
        ]  # fmt: skip
        if not can:
            continue
        elsewhere = {s for r in running if r.place.cache != place.cache for s in r.task.shares}
        elsewhere = elsewhere.union(*(there for cache, there in made.items() if cache != place.cache))
        chosen = min(can, key=lambda t: (-len(has & set(t.shares)), len((elsewhere - has) & set(t.shares))))  # Rule 3
        cores = [core for core in place.cores if core not in {c for r in here for c in r.cores}]
        n = max(1, len(cores) // min(free, _together(chosen, can, has, used, place)))  # Rule 4
        return Running(chosen, place, tuple(cores[:n]) or place.cores)
    return None


def _fits(task: Task, place: Place, used_bytes: int, busy: bool, most_bytes: int) -> bool:
    if place.ram_bytes is None:
        return True
    if task.need.ram_bytes > place.ram_bytes:  # somewhere else, or alone
        return not busy and task.need.ram_bytes > most_bytes
    return used_bytes + task.need.ram_bytes <= place.ram_bytes


def _together(chosen: Task, can: Sequence[Task], has: set[Share], used_bytes: int, place: Place) -> int:
    """How many of `can` could start now, `chosen` among them."""
    claimed: set[Share] = set()
    n = 0
    for task in [chosen, *(t for t in can if t is not chosen)]:
        wants = set(task.shares) - has
        enough = place.ram_bytes is None or used_bytes + task.need.ram_bytes <= place.ram_bytes
        if n == 0 or (enough and not wants & claimed):
            claimed |= wants
            used_bytes += task.need.ram_bytes
            n += 1
    return n
