"""Flashes on a machine whose disk is logged, and what is wrong after each cut that could have interrupted them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import bundle as bundles
from edge.devices import runner, store
from edge.devices.address import connect
from edge.devices.install import flash
from edge.devices.runner import Runner
from edge.devices.store import Store
from edge.errors import EdgeError
from edge.progress import Silent
from tests.rigs import powercut
from tests.rigs.machine import Machine

_START = """case $1 in selftest) echo '{"tokens": [1], "compared": 0}' ;; *) exit 64 ;; esac"""
# What the device's half of the store does so that a cut loses nothing.
_WAITS = (("flush() { ", "flush() { return 0; "), ("everything() { ", "everything() { return 0; "))


def quick(bundle, facts, progress, **_) -> Runner:
    """What starts a bundle without Python there: a line of shell, and a pack to be unpacked."""
    return Runner(f"{_START} # {bundle.id}", "sh", (runner._code(),))


def careless(text: str) -> str:
    """`store.sh` without its flushes."""
    for old, new in _WAITS:
        assert old in text
        text = text.replace(old, new)
    return text


@dataclass(frozen=True)
class Step:
    """A flash of `folder` into `store`, and how long the log was when it began and when it was said to be done."""

    folder: Path
    store: str
    begun: int
    acknowledged: int


def flashed(machine: Machine, folders: Sequence[Path], store_at: str, change: Callable[[str], str] = str) -> list[Step]:
    """Flash one after another, with the device's half of the store changed; every cut comes while that is done."""
    assert machine.log is not None
    steps, text, choose = [], store.script(), runner.choose
    whole = store.script
    runner.choose, store.script = quick, lambda: change(text)
    device = connect(f"{machine.address}{store_at}")
    try:
        for folder in folders:
            begun = machine.log.stat().st_size
            flash(folder, device)
            steps.append(Step(folder, store_at, begun, machine.log.stat().st_size))
    finally:
        device.close()
        runner.choose, store.script = choose, whole
    return steps


def outcomes(
    base: Path, log: Path, steps: Sequence[Step], count: int, folder: Path, seed: int
) -> Iterator[tuple[int, list[str]]]:
    """For `count` cuts while `steps` were taken: after which write, and what is wrong then.

    One comes as soon as a step was said to be done, for each, and the others after random writes.
    """
    writes = powercut.read(log)
    until = [following.begun for following in writes[1:]] + [log.stat().st_size]
    within = [i for i, w in enumerate(writes) if steps[0].begun < w.end <= steps[-1].acknowledged]
    said = [max(i for i in within if writes[i].end <= step.acknowledged) for step in steps]
    chance = random.Random(seed)
    cuts = [*said, *chance.choices(within, k=count - len(said))]
    for cut, image in powercut.disks(base, log, cuts, folder, chance):
        yield cut, _wrong(image, until[cut], steps)


def _wrong(image: Path, at: int, steps: Sequence[Step]) -> list[str]:
    """What a cut broke that left `image`, at the latest when the log was `at` bytes long; nothing, as it should be."""
    done = [step for step in steps if step.acknowledged <= at]
    under_way = [step for step in steps if step.begun <= at < step.acknowledged]
    may_run = {bundles.read(step.folder).id for step in [*done[-1:], *under_way]}
    try:
        with powercut.mounted(image) as root:
            return _look(root / steps[0].store.lstrip("/"), may_run, steps[-1].folder, empty=not done)
    except OSError as err:
        return [str(err)]


def _look(root: Path, may_run: set[str], following: Path, *, empty: bool) -> list[str]:
    """In the store at `root`: what of `may_run` runs is whole, as is all that is kept, and the next flash succeeds."""
    device = connect(f"local:{root}")
    there = Store(device)
    inventory = there.inventory()
    wrong = []
    if inventory.current not in may_run and not (empty and inventory.current is None):
        wrong.append(f"{inventory.current} runs, and not one of {may_run}")
    held = {inventory.current, inventory.previous} - {None}
    for fault in there.fsck() if root.is_dir() else ():
        # What was being made when the power went may be torn: the next flash makes it anew.
        if fault.what in ("damaged", "dangling", "spoilt") or {fault.name, fault.of} & held:
            wrong.append(f"{fault.what} {fault.name} {fault.of}".strip())
    choose, runner.choose = runner.choose, quick
    try:
        flash(following, device, progress=Silent())
        for entry in bundles.read(following).files:
            if hashlib.sha256((root / "current" / entry.path).read_bytes()).hexdigest() != entry.sha256:
                wrong.append(f"after the next flash, {entry.path} is not what it should be")
    except (EdgeError, OSError) as err:
        wrong.append(f"the next flash fails: {err}")
    finally:
        runner.choose = choose
    return wrong
