"""Check a store and put it right: what is damaged goes, what is known is sent again, and something whole runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.devices import install
from edge.devices.device import Device
from edge.devices.store import Entry, Fault, Held, Store
from edge.progress import Progress, Silent
from edge.runtimes import integrity

_WORDS = {
    "damaged": "a file is damaged: {name:.12}",
    "missing": "bundle {of} lacks a file: {name:.12}",
    "torn": "bundle {name} is incomplete",
    "unlinked": "a file of bundle {name} is not the one it should be",
    "spoilt": "the runtime {name} is damaged",
    "unpacked": "bundle {of} lacks its runtime {name}",
    "unstarted": "what starts bundle {name} is lost",
    "dangling": "{name} leads to {of}, which is not whole",
}


@dataclass(frozen=True)
class Checked:
    """What was wrong, what is still, what runs now, and what ran before."""

    faults: tuple[Fault, ...]
    left: tuple[Fault, ...]
    current: str | None
    before: str | None = None

    @property
    def exit_code(self) -> int:
        return 1 if self.left else 0

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "faults": [vars(f) for f in self.faults],
            "left": [vars(f) for f in self.left],
            "current": self.current,
        }


def words(fault: Fault) -> str:
    """A fault as a sentence.

    >>> words(Fault("torn", "3f2a90c1d4b7"))
    'bundle 3f2a90c1d4b7 is incomplete'
    """
    return _WORDS[fault.what].format(name=fault.name, of=fault.of)


def fsck(
    device: Device,
    root: str | None = None,
    *,
    repair: bool = False,
    sources: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Checked:
    """Hash everything there; with `repair`, put right what can be.

    1. What is damaged or torn is taken away; files are never mended in place.
    2. What bundles lack then is sent again from `sources`, bundles of this machine.
    3. A runtime that is damaged, or what starts a bundle, comes back with the next flash of the bundle.
    4. When the current bundle is not whole after that, and the previous one is, that one runs.
    """
    progress = progress or Silent()
    store = Store(device, root)
    if (found := store.inventory()).root is None:
        return Checked((), (), None)
    progress.start(f"hashing what is on {device.address}")
    faults = store.fsck()
    if not faults or not repair:
        return Checked(faults, faults, found.current, found.current)
    known: dict[str, Entry] = {}
    for folder in sources:
        bundle = bundles.read(folder)
        integrity.check(folder, bundle)
        known.update({e.sha256: e for e in install.contents(folder, bundle)})
    with store.hold() as held:
        progress.start("putting it right")
        held.mend(faults)
        wanted = [f for f in store.fsck() if f.what == "missing"]
        _send(held, store, [known[name] for name in dict.fromkeys(f.name for f in wanted) if name in known])
        left = store.fsck()
        if any(f.what == "unlinked" for f in left):
            held.mend(left)
            left = store.fsck()
        there = store.inventory()
        broken = {f.of or f.name for f in left}
        if there.current in broken or there.current is None:
            if there.previous and there.previous not in broken and there.previous in there.bundles:
                held.rollback()
            left = store.fsck()
    return Checked(faults, left, store.inventory().current, found.current)


def _send(held: Held, store: Store, entries: Sequence[Entry]) -> None:
    parts = store.inventory().parts
    for entry in entries:
        held.put(entry, parts.get(entry.sha256, 0))
    if entries:
        held.relink()
