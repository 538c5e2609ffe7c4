"""Devices to test on: each once for a whole module."""

from __future__ import annotations

import pytest

from edge.devices import install, runner
from edge.devices.address import connect
from edge.devices.runner import Runner
from tests.devices.bundles import two_bundles
from tests.rigs import sshd
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device


@pytest.fixture(scope="session")
def ssh_rig(tmp_path_factory):
    if reason := sshd.missing():
        pytest.skip(reason)
    rig = sshd.Sshd(tmp_path_factory.mktemp("sshd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SSH_CONFIG", str(rig.config))
        yield rig
    rig.stop()


@pytest.fixture(scope="session")
def adb_rig(tmp_path_factory):
    """A phone whose serial is known; `adb` is a client of its own."""
    if reason := tree.missing() or client.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("adbd")
    with (
        pytest.MonkeyPatch.context() as patch,
        Adb(folder / "home") as adb,
        Device(tree.Tree(folder / "tree")) as phone,
    ):
        for name, value in adb.environment.items():
            patch.setenv(name, value)
        yield phone


@pytest.fixture(
    params=["local", "memory", pytest.param("ssh", marks=pytest.mark.rig), pytest.param("adb", marks=pytest.mark.rig)]
)
def device(request, tmp_path):
    """One device of each kind, with an empty store."""
    match request.param:
        case "local":
            found = connect(f"local:{tmp_path / 'store'}")
        case "memory":
            found = connect("memory:")
        case "adb":
            found = connect(f"adb:{request.getfixturevalue('adb_rig').serial}")
        case _:
            rig = request.getfixturevalue("ssh_rig")
            found = connect(f"{rig.address}{tmp_path / 'store'}")
    yield found
    found.close()


@pytest.fixture
def quick(monkeypatch):
    """Bundles that need no Python there: what starts them is a line of shell."""
    start = """case $1 in selftest) echo '{"tokens": [1], "compared": 0}' ;; *) exit 64 ;; esac"""
    monkeypatch.setattr(
        runner, "choose", lambda bundle, facts, progress, **_: Runner(f"{start} # {bundle.id}", "sh", ())
    )


@pytest.fixture
def folders(tmp_path):
    """Two bundles that share a large file, and differ in another."""
    return two_bundles(tmp_path)


@pytest.fixture
def memory():
    device = connect("memory:")
    yield device
    device.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(install, "_PAUSE_S", 0.0)
