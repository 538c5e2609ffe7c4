"""Flashing devices in a bad way: a slow link, too little memory, a clock that is wrong."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.devices import install, store
from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.install import flash
from edge.devices.remote import open_remote
from edge.devices.store import Store
from edge.errors import DeviceError
from tests.devices.bundles import whole
from tests.devices.faults import Wrapped
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.rig


# --- a slow link

_PROXY = """\
import os, select, socket, sys, time
there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
while True:
    for one in select.select([0, there], [], [])[0]:
        data = os.read(0, 1 << 13) if one == 0 else there.recv(1 << 16)
        if not data:
            sys.exit()
        if one == 0:
            there.sendall(data)
            time.sleep(len(data) / float(sys.argv[2]))
        else:
            os.write(1, data)
"""


@pytest.fixture
def hasty(monkeypatch):
    """A device that gives the lock up after 2 s instead of 30."""
    text = store.script()
    assert "timeout 30" in text
    monkeypatch.setattr(store, "script", lambda: text.replace("timeout 30", "timeout 2"))
    monkeypatch.setattr(store, "_HEARTBEAT_S", 0.5)


def slow(ssh_rig, tmp_path, monkeypatch):
    """The rig behind a link of 600 kB/s, on which signs of life wait behind what is sent."""
    proxy, config = tmp_path / "proxy.py", tmp_path / "config"
    proxy.write_text(_PROXY)
    config.write_text(f"{ssh_rig.config.read_text()}  ProxyCommand {sys.executable} {proxy} {ssh_rig.port} 600000\n")
    monkeypatch.setenv("EDGE_SSH_CONFIG", str(config))
    return connect(f"{ssh_rig.address}{tmp_path / 'store'}")


@pytest.mark.usefixtures("quick", "hasty")
def test_a_slow_link_over_ssh_keeps_its_lock(ssh_rig, folders, tmp_path, monkeypatch):
    device = slow(ssh_rig, tmp_path, monkeypatch)
    try:
        done = flash(folders[0], device)
        assert done.seconds > 3
        whole(device, folders[0])
        assert Store(device).fsck() == ()
    finally:
        device.close()


@pytest.mark.usefixtures("quick", "hasty")
def test_a_slow_link_over_adb_keeps_its_lock(adb_rig, folders):
    device = connect(f"adb:{adb_rig.serial}")
    device.root += "-slow"
    adb_rig.faults.bytes_per_s = 5e5
    try:
        assert flash(folders[0], device).seconds > 3
    finally:
        adb_rig.faults.release()
    assert Store(device).fsck() == ()


@pytest.mark.usefixtures("quick", "hasty")
def test_a_slow_link_without_signs_of_life_loses_its_lock(adb_rig, folders, monkeypatch):
    device = connect(f"adb:{adb_rig.serial}")
    device.root += "-silent"
    monkeypatch.setattr(store, "_HEARTBEAT_S", 60.0)
    monkeypatch.setattr(install, "_TRIES", 1)
    adb_rig.faults.bytes_per_s = 5e5
    try:
        with pytest.raises(LinkLost, match="not ours any more"):
            flash(folders[0], device)
    finally:
        adb_rig.faults.release()


# --- too little memory


class Small(Wrapped):
    """A device whose programs share 64 MB; the kernel ends the one that wants more."""

    def __init__(self, inner, group):
        super().__init__(inner)
        self._enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]

    def run(self, argv, stdin=b"", timeout_s=60.0):
        return super().run([*self._enter, *argv], stdin, timeout_s)

    def open(self, argv):
        return self.inner.open([*self._enter, *argv])


@pytest.fixture
def group():
    """A control group with a limit of memory, of either version."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"edge-test-{secrets.token_hex(4)}")
        try:
            group.mkdir()
            (group / limit).write_text(str(64 << 20))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
            if (group / swap).exists():
                (group / swap).write_text("0" if swap.endswith("max") else str(64 << 20))
        yield group
        for name in (group / "cgroup.procs").read_text().split():
            os.kill(int(name), 9)
        group.rmdir()
        return
    pytest.skip("a limit of memory needs root, and a control group that can be made")


def test_a_bundle_that_takes_more_memory_than_there_is_never_runs(memory, group, folders, monkeypatch):
    def starts(script):
        monkeypatch.setattr(install.runner, "choose", lambda *_, **__: install.Runner(script, "sh", ()))

    old, new = folders
    starts('echo \'{"tokens": [1], "compared": 0}\'')
    flash(old, memory)
    eats = f"exec {sys.executable} -c 'x = bytearray(b\"x\" * (300 << 20)); print(len(x))'"
    starts(eats)
    with pytest.raises(DeviceError, match=r"it was killed, most likely for want of memory(.|\n)*still does"):
        flash(new, Small(memory, group))
    assert Store(memory).inventory().current == bundles.read(old).id
    assert Store(memory).fsck() == ()


def test_a_model_that_is_killed_for_want_of_memory_says_so(tmp_path, group):
    folder = tmp_path / "tiny"
    tiny_bundle(folder)
    device = connect(f"local:{tmp_path / 'store'}")
    flash(folder, device)
    start = Path(device.root) / "refs" / f"{bundles.read(folder).id}.start"
    text = start.read_text()
    start.write_text(f"{sys.executable} -c 'x = bytearray(b\"x\" * (300 << 20))' || exit\n{text}")
    with pytest.raises(DeviceError, match=r"killed there, most likely for want of memory(.|\n)*--context"):
        open_remote(Small(device, group))


# --- a wrong clock


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("seconds", "words"), [(0, "days behind"), (4102444800, "days ahead")])
def test_a_clock_that_is_wrong_is_noted_and_does_no_harm(memory, folders, tmp_path, monkeypatch, seconds, words):
    old, new = folders
    date = tmp_path / "bin" / "date"
    date.parent.mkdir()
    date.write_text(f"#!/bin/sh\necho {seconds}\n")
    date.chmod(0o755)
    monkeypatch.setenv("PATH", str(date.parent), prepend=":")
    flash(old, memory)
    # Files of another time than ours, as such a clock leaves them.
    for path in Path(memory.root).rglob("*"):
        os.utime(path, (seconds, seconds), follow_symlinks=False)
    done = flash(new, memory)
    assert [n for n in done.notes if words in n]
    whole(memory, new)
    assert not flash(new, memory).changed
    assert Store(memory).fsck() == ()
