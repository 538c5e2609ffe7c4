"""A whole machine whose plug is pulled while it is flashed; `python -m benchmarks.power_cuts` does it 306 times."""

import shutil
import threading
import time

import pytest

from edge import bundle as bundles
from edge.devices import runner
from edge.devices.address import connect
from edge.devices.install import flash
from edge.devices.store import Store
from edge.errors import EdgeError
from tests.devices import powercuts
from tests.devices.bundles import two_bundles
from tests.rigs import powercut

pytestmark = pytest.mark.rig
CUTS = 10
CAREFUL, CARELESS = "/var/lib/careful", "/var/lib/careless"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def rig(_booted):
    made, _ = _booted
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SSH_CONFIG", str(made.config))
        made.run(f"sudo install -d -o pi {CAREFUL} {CARELESS}")
        yield made


@pytest.fixture(scope="module")
def logged(rig, folder):
    """Two flashes as they are, two without flushes; the disk before, and the log of all that it was told."""
    pair = two_bundles(folder)
    careful = powercuts.flashed(rig, pair, CAREFUL)
    careless = powercuts.flashed(rig, pair, CARELESS, powercuts.careless)
    kept = folder / "kept.log"
    kept.write_bytes(rig.log.read_bytes())
    return rig.folder / "base.img", kept, careful, careless


def test_whatever_a_cut_leaves_something_whole_runs(logged, folder):
    if reason := powercut.missing():
        pytest.skip(reason)
    base, log, careful, _ = logged
    found = list(powercuts.outcomes(base, log, careful, CUTS, folder, seed=1))
    assert len(found) == CUTS
    assert [(cut, wrong) for cut, wrong in found if wrong] == []


def test_without_flushes_cuts_are_found_to_break_it(logged, folder):
    if reason := powercut.missing():
        pytest.skip(reason)
    base, log, _, careless = logged
    assert any(wrong for _, wrong in powercuts.outcomes(base, log, careless, 12, folder, seed=2))


def test_a_machine_whose_plug_is_pulled_in_a_flash_runs_what_it_ran_and_goes_on(rig, logged, folder, monkeypatch):
    old, new = (folder / name for name in ("old", "new"))
    monkeypatch.setattr(runner, "choose", powercuts.quick)
    device = connect(f"{rig.address}{CAREFUL}")
    now = bundles.read(new).id
    assert Store(device).inventory().current == now

    def doomed():
        try:
            flash(old, device)
        except EdgeError:
            pass

    thread = threading.Thread(target=doomed)
    thread.start()
    time.sleep(3)
    rig.cut()
    rig.start()
    thread.join()
    device.close()
    device = connect(f"{rig.address}{CAREFUL}")
    try:
        assert Store(device).inventory().current in (now, bundles.read(old).id)
        flash(old, device)
        assert Store(device).inventory().current == bundles.read(old).id
        assert Store(device).fsck() == ()
    finally:
        device.close()
