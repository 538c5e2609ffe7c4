"""Make room in the cache: what can be made again goes, the longest unused first."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge import cache

# What an export makes on its way, and copies. All else took a network, or hours: packs, sources, students.
_MADE_AGAIN = re.compile(r".+-(full|quantized|narrow|vision|joined)|checkpoints|text-parts|sent|xnnpack")
IN_USE_S = 2 * 3600  # an export asks for a stage once, and may read it for a while after


@dataclass(frozen=True)
class Kept:
    """One finished thing in the cache; `n_bytes` is what removing it frees (no file that a bundle shares)."""

    kind: str
    name: str
    n_bytes: int
    used_s: float  # when it was last asked for, in seconds since 1970

    @property
    def made_again(self) -> bool:
        """Whether edge makes it anew from the checkpoint alone, without a network."""
        return bool(_MADE_AGAIN.fullmatch(self.kind))


def kept() -> list[Kept]:
    """All that is kept, the longest unused first; a kind that holds no folders counts as one thing."""
    found = []
    for kind in _folders(cache.root()):
        for entry in os.scandir(kind):
            if entry.name.startswith(".edge-"):
                continue
            try:
                used_s = entry.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:  # it went while we looked
                continue
            found.append(Kept(kind.name, entry.name, _bytes(Path(entry.path)), used_s))
    return sorted(found, key=lambda one: (one.used_s, one.kind, one.name))


def chosen(*, at_most_bytes: int | None = None, unused_s: float = 0.0, now_s: float | None = None) -> list[Kept]:
    """What to remove, the longest unused first, until at most `at_most_bytes` can be made again.

    Nothing that was asked for in the last `unused_s` seconds, and nothing that edge cannot make again by itself.
    """
    now_s = time.time() if now_s is None else now_s
    known = [one for one in kept() if one.made_again]
    left, going = sum(one.n_bytes for one in known), []
    for one in known:
        if (at_most_bytes is not None and left <= at_most_bytes) or now_s - one.used_s < unused_s:
            break
        going.append(one)
        left -= one.n_bytes
    return going


def remove(things: list[Kept]) -> int:
    """Remove them; how many bytes that freed. Each vanishes at once from where it is looked for."""
    for one in things:
        place = cache.root() / one.kind / one.name
        if place.is_dir():
            cache.discard(one.kind, one.name)
        else:
            place.unlink(missing_ok=True)
    return sum(one.n_bytes for one in things)


def make(wanted_bytes: int) -> int:
    """Free `wanted_bytes` or more with stages unused for `IN_USE_S`; 0, and nothing goes, if those do not suffice."""
    going, freed = [], 0
    for one in chosen(unused_s=IN_USE_S):
        if freed >= wanted_bytes:
            break
        going.append(one)
        freed += one.n_bytes
    return remove(going) if freed >= wanted_bytes else 0


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))


def _bytes(place: Path) -> int:
    """What removing `place` frees: files with another name elsewhere stay."""
    total = 0
    files = [Path(top, name) for top, _, names in os.walk(place) for name in names]
    for path in files if place.is_dir() else [place]:
        try:
            stat = path.lstat()
        except OSError:
            continue
        if stat.st_nlink == 1:
            total += stat.st_blocks * 512
    return total
