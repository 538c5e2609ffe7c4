"""What a process holds in memory, by kind of mapping: the kernel's own count in `/proc/PID/smaps`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"^[0-9a-f]+-[0-9a-f]+ [-rwxps]{4} [0-9a-f]+ \S+ (\d+) *(.*)$")


@dataclass(frozen=True)
class Held:
    """Bytes in RAM. `weights` and `libraries` are pages of files; `private` has no file: heaps, stacks, buffers.

    `pss` shares every page fairly among the processes that have it; the three kinds are counted whole, and add up to
    `rss`. `swapped` was in RAM and is not now.
    """

    rss: int
    pss: int
    weights: int
    libraries: int
    private: int
    swapped: int


def held(text: str, weights: Sequence[str]) -> Held:
    """From the text of `smaps`; what is mapped from below one of the paths in `weights` is weights.

    Pages of a file that were written to are a copy of this process' own, and count as private.

    >>> text = "00-10 r--p 0 08:01 7 /m/model.gguf\\nRss: 8 kB\\nPss: 4 kB\\nAnonymous: 0 kB\\nSwap: 0 kB\\n"
    >>> held(text, ["/m/"])
    Held(rss=8192, pss=4096, weights=8192, libraries=0, private=0, swapped=0)
    """
    rss = pss = of_weights = libraries = private = swapped = 0
    for path, sizes in _mappings(text):
        resident, own = sizes.get("Rss", 0), sizes.get("Anonymous", 0)
        rss += resident
        pss += sizes.get("Pss", 0)
        swapped += sizes.get("Swap", 0)
        private += own
        if any(path.startswith(prefix) for prefix in weights):
            of_weights += resident - own
        elif path.startswith("/"):
            libraries += resident - own
        else:
            private += resident - own
    return Held(rss, pss, of_weights, libraries, private, swapped)


def of_this_process(weights: Sequence[str]) -> Held | None:
    """This process' own; `None` where the kernel does not say."""
    try:
        return held(Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace"), weights)
    except OSError:
        return None


def _mappings(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Every mapping: its path (empty for none), and its sizes in bytes by the kernel's own words."""
    path, sizes = "", dict[str, int]()
    begun = False
    for line in text.splitlines():
        if head := _HEAD.match(line):
            if begun:
                yield path, sizes
            begun, path, sizes = True, head[2] if head[1] != "0" else "", {}
        else:
            key, _, rest = line.partition(":")
            number, _, unit = rest.strip().partition(" ")
            if unit == "kB" and number.isdigit():
                sizes[key] = int(number) << 10
    if begun:
        yield path, sizes
