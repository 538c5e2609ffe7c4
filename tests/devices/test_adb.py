"""An Android device through the stock adb client: which one is meant, what stands in its way, how links break."""

from __future__ import annotations

import subprocess
import threading

import pytest

from edge.devices.address import connect
from edge.devices.device import LinkLost
from edge.devices.kinds import adb as kind
from edge.errors import DeviceError, MissingError, UsageError
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if reason := tree.missing() or client.missing():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, Adb(tmp_path_factory.mktemp("adb")) as adb:
        for name, value in adb.environment.items():
            patch.setenv(name, value)
        patch.delenv("ANDROID_SERIAL", raising=False)
        yield adb


@pytest.fixture
def phone(server, tmp_path):
    with Device(tree.Tree(tmp_path / "tree")) as phone:
        yield phone
        server("disconnect", phone.serial)


def why(address, error=DeviceError):
    device = connect(address)
    with pytest.raises(error) as caught:
        device.run(["true"])
    return str(caught.value)


def test_states_are_read_from_what_adb_prints():
    text = (
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\nList of devices attached\n"
        "R58M12ABC\tdevice\n192.168.1.7:5555\toffline\nX1\tno permissions (user in plugdev group); see [http://x]\n\n"
    )
    assert kind.states(text) == {"R58M12ABC": "device", "192.168.1.7:5555": "offline", "X1": "no permissions"}


@pytest.mark.parametrize("rest", ["-s", "a b", "a\nb"])
def test_what_is_no_serial(rest):
    with pytest.raises(UsageError, match="is no address"):
        kind.connect(rest)


def test_without_adb_the_line_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install adb" in why("adb:", MissingError)


def test_an_adb_that_does_not_work_is_named(monkeypatch, tmp_path):
    fake = tmp_path / "adb"
    fake.write_text("#!/bin/sh\necho 'error: cannot bind listener' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "adb does not work here: error: cannot bind listener" in why("adb:")


def test_a_device_in_another_state_says_how_to_get_out_of_it(monkeypatch, tmp_path):
    fake = tmp_path / "adb"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for state, hint in (("no permissions (x)", "plugdev"), ("recovery", "adb reboot"), ("host", "adb devices -l")):
        fake.write_text(f"#!/bin/sh\nprintf 'List of devices attached\\nS1\\t{state}\\n'\n")
        fake.chmod(0o755)
        assert hint in why("adb:", LinkLost)


def test_an_adb_that_hangs_is_given_up(monkeypatch, tmp_path):
    fake = tmp_path / "adb"
    fake.write_text("#!/bin/sh\nexec sleep 20\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(kind, "_ASK_S", 0.3)
    assert "adb kill-server" in why("adb:", LinkLost)


def test_a_push_whose_end_is_missing_replaces_nothing(monkeypatch, tmp_path):
    """A daemon that only closes the pipe when the cable is pulled: to the program there, that is the file's end."""
    sent, target = tmp_path / "sent", tmp_path / "target"
    sent.write_bytes(b"new and long")
    target.write_bytes(b"old")
    found = []
    monkeypatch.setattr(kind, "send", lambda device, argv, path, remote: found.extend(argv))
    connect("adb:S1").push(sent, str(target))
    assert subprocess.run(found, input=b"new and").returncode == 1
    assert target.read_bytes() == b"old"
    assert subprocess.run(found, input=b"new and long").returncode == 0
    assert target.read_bytes() == b"new and long"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sent", "target"]


@pytest.mark.rig
class TestWithThePhone:
    def test_no_device(self, server):
        assert "adb sees no device\n  plug the phone in" in why("adb:")
        assert "adb:R58M1: adb sees no such device\n  it sees none" in why("adb:R58M1")

    def test_devices_that_adb_knows_are_found(self, phone, server, monkeypatch):
        server("connect", phone.serial)
        assert kind.found() == [f"adb:{phone.serial}"]
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "9")
        assert kind.found() == []

    def test_a_network_address_is_connected(self, phone):
        device = connect(f"adb:{phone.serial}")
        assert device.run(["getprop", "ro.product.model"]).text == "Edge Test Phone\n"

    def test_nobody_at_a_network_address(self, server):
        assert "wireless debugging" in why("adb:127.0.0.1:9", LinkLost)

    def test_one_device_needs_no_serial(self, phone, server):
        server("connect", phone.serial)
        device = connect("adb:")
        assert device.run(["id", "-u"]).code == 0
        assert device.address == f"adb:{phone.serial}"

    def test_of_two_devices_one_must_be_named(self, phone, server, tmp_path, monkeypatch):
        with Device(tree.Tree(tmp_path / "second")) as second:
            for one in (phone, second):
                server("connect", one.serial)
            words = why("adb:")
            assert f"adb sees 2 devices: adb:{min(phone.serial, second.serial)} (device)" in words
            assert "say which one" in words
            assert f"it sees adb:{min(phone.serial, second.serial)}" in why("adb:R58M1")
            monkeypatch.setenv("ANDROID_SERIAL", second.serial)
            assert connect("adb:").run(["true"]).code == 0
            server("disconnect", second.serial)

    def test_a_phone_that_asks_its_owner(self, phone):
        phone.state = "unauthorized"
        assert "confirm the question about USB debugging on its screen" in why(f"adb:{phone.serial}", LinkLost)
        phone.confirm()
        assert connect(f"adb:{phone.serial}").run(["true"]).code == 0

    def test_a_phone_that_restarted_is_connected_anew(self, phone):
        device = connect(f"adb:{phone.serial}")
        assert device.run(["true"]).code == 0
        phone.restart()
        with pytest.raises(LinkLost, match="run the same command again"):
            device.run(["true"])
        assert device.run(["true"]).code == 0

    def test_a_phone_that_does_not_answer(self, phone, server):
        server("connect", phone.serial)
        phone.state = "silent"
        phone.unplug()
        assert tree.wait_until(lambda: server.states().get(phone.serial) == "offline")
        assert f"adb:{phone.serial}: " in why(f"adb:{phone.serial}", LinkLost)

    def test_a_link_that_breaks_is_no_exit_code(self, phone):
        device = connect(f"adb:{phone.serial}")
        stream = device.open(["sh", "-c", "echo ready; cat"])
        assert stream.readline(timeout_s=20) == b"ready\n"
        phone.unplug()
        with pytest.raises(LinkLost, match="the link broke"):
            stream.finish()

    def test_what_a_program_says_of_errors_is_not_taken_for_adbs(self, phone):
        done = connect(f"adb:{phone.serial}").run(["sh", "-c", "echo 'error: device offline' >&2; exit 1"])
        assert (done.code, done.reason) == (1, "error: device offline")

    def test_a_push_that_is_cut_leaves_what_was_there(self, phone, tmp_path):
        device = connect(f"adb:{phone.serial}")
        (tmp_path / "old").write_bytes(b"old")
        (tmp_path / "new").write_bytes(b"n" * (8 << 20))
        remote = "/data/local/tmp/model"
        device.push(tmp_path / "old", remote)
        phone.faults.arm("cut", after_writes=6)
        with pytest.raises(LinkLost):
            device.push(tmp_path / "new", remote)
        device.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"old"
        device.push(tmp_path / "new", remote)
        device.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"n" * (8 << 20)

    def test_a_link_that_stalls_is_given_up(self, phone):
        device = connect(f"adb:{phone.serial}")
        stream = device.open(["sh", "-c", "cat > /dev/null"])
        phone.faults.arm("stall", after_writes=2)
        with pytest.raises(LinkLost, match="the link stalls"):
            for _ in range(600):
                stream.write(b"x" * (1 << 18), timeout_s=1)

    def test_files_that_cannot_be_there(self, phone, tmp_path):
        device = connect(f"adb:{phone.serial}")
        (tmp_path / "x").write_bytes(b"x")
        with pytest.raises(DeviceError, match="/system/x cannot be written"):
            device.push(tmp_path / "x", "/system/x")
        with pytest.raises(DeviceError, match="/system/none cannot be read"):
            device.pull("/system/none", tmp_path / "y")

    def test_streams_end_with_their_device(self, phone):
        device = connect(f"adb:{phone.serial}")
        stream = device.open(["sh", "-c", "echo ready; sleep 60"])
        stream.readline(timeout_s=20)
        threading.Timer(0.2, phone.stop).start()
        with pytest.raises(LinkLost):
            stream.finish(timeout_s=20)
