"""Flashing a phone whose cable is pulled or whose adbd dies: what ran before runs, and the next try gets there."""

from __future__ import annotations

import pytest

from edge import bundle as bundles
from edge.devices import install
from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.store import Store
from edge.errors import DeviceError
from tests.devices.bundles import two_bundles
from tests.rigs.adbd import tree
from tests.rigs.adbd.device import Device

pytestmark = [pytest.mark.rig, pytest.mark.usefixtures("quick", "adb_rig")]
LARGE = 6 << 20


@pytest.fixture
def phone(adb_rig, tmp_path):
    with Device(tree.Tree(tmp_path / "tree")) as phone:
        yield phone


@pytest.fixture
def large(tmp_path):
    return two_bundles(tmp_path / "bundles", large=LARGE)


def current(device):
    return Store(device).inventory().current


def test_a_phone_is_flashed_and_flashed_again(phone, large):
    old, new = large
    device = connect(f"adb:{phone.serial}")
    assert install.flash(old, device).changed
    assert not install.flash(old, device).changed
    done = install.flash(new, device)
    assert LARGE < done.sent_bytes < LARGE + (1 << 20)
    assert done.facts.android == "14"
    assert Store(device).fsck() == ()


@pytest.mark.parametrize("what", ["cut", "die"])
@pytest.mark.parametrize("after_writes", [3, 25])
def test_what_ran_before_runs_until_the_next_try_ends_it(phone, large, monkeypatch, what, after_writes):
    monkeypatch.setattr(install, "_TRIES", 1)
    old, new = large
    device = connect(f"adb:{phone.serial}")
    install.flash(old, device)
    phone.faults.arm(what, after_writes)
    with pytest.raises(LinkLost):
        install.flash(new, device)
    if what == "die":
        assert tree.wait_until(lambda: phone.off)
        phone.start()
    assert current(device) == bundles.read(old).id
    assert tree.wait_until(lambda: flashed(new, device), timeout_s=40)
    assert current(device) == bundles.read(new).id
    assert Store(device).fsck() == ()


def flashed(folder, device):
    """Whether it could be flashed now: what a lost link held is let go of within half a minute."""
    try:
        install.flash(folder, device)
    except DeviceError as err:
        if "another flash is under way" not in err.message:
            raise
        return False
    return True
