"""Devices to test on, most of them once for all tests."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from edge.devices import install, runner
from edge.devices.address import connect
from edge.devices.card import ext4, image
from edge.devices.runner import Runner
from tests.devices.bundles import two_bundles
from tests.rigs import card, machine, machines, sshd
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="session")
def _ssh_rig(tmp_path_factory):
    if reason := sshd.missing():
        pytest.skip(reason)
    rig = sshd.Sshd(tmp_path_factory.mktemp("sshd"))
    yield rig
    rig.stop()


@pytest.fixture
def ssh_rig(_ssh_rig, monkeypatch):
    """A real sshd on loopback. All rigs are called `rig`: which one is meant stands in the environment."""
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(_ssh_rig.config))
    return _ssh_rig


@pytest.fixture(scope="session")
def adb(tmp_path_factory):
    """The one client that the phones of a session are reached by: which one stands in the environment."""
    if reason := client.missing():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, Adb(tmp_path_factory.mktemp("adb") / "home") as adb:
        # Only that: with its home, what pip keeps would be fetched anew.
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(adb.port))
        yield adb


@pytest.fixture(scope="session")
def adb_rig(tmp_path_factory, adb):
    """A phone of this machine's own architecture, whose serial is known."""
    if reason := tree.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("adbd")
    with Device(tree.Tree(folder / "tree")) as phone:
        yield phone
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def phone(tmp_path_factory, adb):
    """A phone of arm64 programs, whose processor has dot products."""
    if reason := machines.missing("android"):
        pytest.skip(reason)
    with machines.phone(tmp_path_factory.mktemp("android")) as device:
        yield device


@pytest.fixture(scope="session")
def _pi(tmp_path_factory):
    if reason := machines.missing("pi"):
        pytest.skip(reason)
    with machines.pi(tmp_path_factory.mktemp("pi"), "cortex-a72") as device:
        yield device


@pytest.fixture
def pi(_pi, monkeypatch):
    """A Raspberry Pi 4, whose Python has no numpy."""
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(_pi.config))
    return _pi


@pytest.fixture(scope="session")
def _booted(tmp_path_factory):
    if reason := machine.missing():
        pytest.skip(reason)
    if ext4.NEED.missing:
        pytest.skip(f"images of cards need {ext4.NEED.install}")
    folder = tmp_path_factory.mktemp("card")
    tiny_bundle(folder / "tiny")
    original, before = card.card().image, card.card().image.stat()
    written = image.write(folder / "tiny", original, folder / "new.img")
    assert written.grown_bytes > 0
    assert original.stat().st_mtime_ns == before.st_mtime_ns
    subprocess.run(["cp", "--sparse=always", str(folder / "new.img"), str(folder / "base.img")], check=True)
    rig = machine.Machine(folder, folder / "new.img", log=True)
    rig.start()
    yield rig, folder
    rig.stop()
    shutil.rmtree(folder)


@pytest.fixture
def booted(_booted, monkeypatch):
    """A whole machine that started from a card with a bundle in it, and the folder where that bundle is `tiny`.

    What its disk is told is logged; the folder's `base.img` is the disk before.
    """
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(_booted[0].config))
    return _booted


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
