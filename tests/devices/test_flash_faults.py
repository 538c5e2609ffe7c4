"""Flashing over links that break, with bits that flip, twice at once: what is left whatever happens on the way."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.devices import install, store
from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.install import Wishes, flash
from edge.devices.store import Store
from edge.errors import DeviceError, EdgeError
from tests.devices.bundles import LARGE, whole
from tests.devices.faults import Cut, Dies, Flips, Wrapped

pytestmark = [pytest.mark.rig, pytest.mark.usefixtures("quick")]


# --- links that break


@pytest.mark.parametrize("after", [1, 9000, 1 << 17, LARGE - 7])
def test_a_link_that_breaks_goes_on_where_it_was(memory, folders, after):
    old, new = folders
    flash(old, memory)
    cut = Cut(memory, after)
    done = flash(new, cut)
    whole(memory, new)
    # What was sent before the cut is not sent again, but for what was on its way.
    assert done.sent_bytes <= LARGE + 10_000 + (1 << 18)


def test_a_link_that_stays_broken_leaves_what_runs(memory, folders):
    old, new = folders
    flash(old, memory)
    with pytest.raises(LinkLost, match="the link broke"):
        flash(new, Cut(memory, 1000, times=99))
    whole(memory, old)
    flash(new, memory)
    whole(memory, new)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", ["inventory", "hold", "stage", "switch", "remove"])
def test_a_death_at_every_step_leaves_something_whole(memory, folders, verb, after, monkeypatch):
    old, new = folders
    flash(old, memory)
    monkeypatch.setattr(install, "_TRIES", 1)
    with pytest.raises(LinkLost):
        flash(new, Dies(memory, verb, after=after) if verb != "hold" else Cut(memory, LARGE // 2))
    switched = verb == "remove" or (verb == "switch" and after)
    whole(memory, new if switched else old)
    flash(new, memory)
    whole(memory, new)
    assert Store(memory).fsck() == ()


def test_a_bit_that_flips_on_the_way_is_found(memory, folders):
    with pytest.raises(EdgeError, match="arrived damaged"):
        flash(folders[0], Flips(memory))
    assert Store(memory).inventory().current is None
    flash(folders[0], memory)
    whole(memory, folders[0])


def test_a_damaged_beginning_is_sent_anew(memory, folders):
    entry = next(e for e in install.contents(folders[0], bundles.read(folders[0])) if e.path == "shared.bin")
    blobs = Path(memory.root) / "blobs"
    blobs.mkdir()
    (blobs / f"sha256-{entry.sha256}.part").write_bytes(b"\0" * (LARGE // 2))
    done = flash(folders[0], memory)
    whole(memory, folders[0])
    assert done.sent_bytes >= LARGE


def test_a_file_that_says_it_is_a_blob_but_is_short_is_sent_again(memory, folders):
    old, new = folders
    flash(old, memory)
    digest = hashlib.sha256((old / "shared.bin").read_bytes()).hexdigest()
    blob = Path(memory.root) / "blobs" / f"sha256-{digest}"
    blob.chmod(0o644)
    blob.unlink()
    blob.write_bytes(b"short")
    flash(new, memory)
    whole(memory, new)


# --- two at once


def test_two_flashes_at_once(memory, folders):
    old, new = folders
    flash(old, memory)
    inside, done = threading.Event(), threading.Event()

    class Waits(Wrapped):
        def written(self, stream, data):
            if stream.verb == "put":
                inside.set()
                done.wait(30)
            return data

    thread = threading.Thread(target=lambda: flash(new, Waits(memory)))
    thread.start()
    inside.wait(30)
    try:
        with pytest.raises(DeviceError, match=r"another flash is under way(.|\n)*wait for it") as caught:
            flash(new, memory)
    finally:  # without the lock this fails, and the other one must not wait on for minutes
        done.set()
        thread.join()
    assert caught.value.exit_code == 4
    whole(memory, new)


def test_a_flash_that_lost_its_lock_changes_nothing(memory, folders):
    old, new = folders
    flash(old, memory)
    entries = install.contents(new, bundles.read(new))
    with Store(memory).hold() as held:
        for entry in entries:
            held.put(entry, 0)
        held.stage("0123456789ab", "exit 0", [], entries)
        (Path(memory.root) / "lock.owner").write_text("somebody else")
        for change in (lambda: held.switch("0123456789ab"), lambda: held.put(entries[0], 0), held.relink):
            with pytest.raises(LinkLost, match="not ours any more"):
                change()
    whole(memory, old)


# --- protections, taken away one by one

MUTANTS = {
    "the hash of what arrived": (
        '[ "${found%% *}" = "$2" ] ||', "true ||", test_a_bit_that_flips_on_the_way_is_found,
    ),
    "the lock": ("flock -n 9 ||", "true ||", test_two_flashes_at_once),
    "the owner of the lock": (
        'owned() {', 'owned() { return 0', test_a_flash_that_lost_its_lock_changes_nothing,
    ),
    "the place where the rest goes": (
        '[ "$4" = 0 ] || [ "$have" = "$4" ] || fail 75 "$have"', "true", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, m in MUTANTS.items() if m[2]])
def test_without_a_protection_its_test_fails(name, memory, folders, monkeypatch):
    old, new, test = MUTANTS[name]
    text = store.script()
    assert old in text
    if name == "the owner of the lock":
        new = new + "; }; was() {"
    monkeypatch.setattr(store, "script", lambda: text.replace(old, new))
    with pytest.raises((AssertionError, pytest.fail.Exception, EdgeError)):
        test(memory, folders)


# --- a disk that fills up


@pytest.fixture
def small_disk(tmp_path):
    """A device whose whole disk is a few MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]).returncode:
        pytest.skip("a small disk of its own needs root, and the right to mount")
    yield connect(f"local:{place}/store")
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("left", [0, 5_000, 40_000, 600_000, LARGE + 10_000])
def test_a_disk_that_fills_up_at_any_point(small_disk, folders, left):
    old, new = folders
    flash(old, small_disk, Wishes(force=True))
    ballast = Path(small_disk.root).parent / "ballast"
    free = shutil.disk_usage(small_disk.root).free
    ballast.write_bytes(b"\0" * max(0, free - left))
    with pytest.raises(DeviceError, match=r"unfit for new(.|\n)*disk: "):
        flash(new, small_disk)
    # Somebody else filled it after we looked.
    with contextlib.suppress(DeviceError):
        flash(new, small_disk, Wishes(force=True))
    now = Store(small_disk).inventory().current
    whole(small_disk, new if now == bundles.read(new).id else old)
    ballast.unlink()
    flash(new, small_disk, Wishes(force=True))
    whole(small_disk, new)
