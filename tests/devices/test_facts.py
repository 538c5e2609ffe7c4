"""What a device writes, and what is understood of it.

The texts have the form that these devices write; none was captured from a real one yet.
"""

import json
from pathlib import Path

import pytest

from edge.devices import facts
from edge.devices.address import connect
from edge.devices.device import Done
from edge.devices.store import Store
from edge.errors import DeviceError

GOLDEN = Path(__file__).parent / "facts"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda p: p.stem)
def test_what_devices_write_is_understood(path):
    found = facts.parse(path.read_text())
    record = {**found.record(), "state": found.state.record(), "bits": found.bits, "user_id": found.user_id}
    assert json.loads(json.dumps(record)) == json.loads(path.with_suffix(".json").read_text())


def test_nothing_at_all_is_understood_as_nothing():
    found = facts.parse("")
    assert (found.python, found.glibc, found.emulated) == (None, None, False)
    assert found.state.temperature_c is None


def test_this_machine():
    found = facts.ask(connect("local"))
    assert found.profile.ram_bytes
    assert found.state.available_bytes
    assert found.boot_id


def test_a_device_without_a_shell(monkeypatch):
    device = connect("local")
    real = device.run
    monkeypatch.setattr(device, "run", lambda *a, **k: real(["no-such-shell"]))
    with pytest.raises(DeviceError, match="no shell that answers"):
        facts.ask(device)


@pytest.mark.parametrize(
    "said",
    ["@python\n/usr/bin/python3\n[broken\n", "@python\n/p\n[1, []]\n", "@loadavg\nx y z\n", "@temperature\n--1\n"],
)
def test_a_device_that_talks_nonsense_is_said(said):
    class Odd:
        address = "odd"

        def run(self, argv, stdin=b"", timeout_s=60.0):
            return Done(0, said.encode(), b"")

    with pytest.raises(DeviceError, match="odd: what it says of itself makes no sense"):
        facts.ask(Odd())
    if "python" not in said:
        with pytest.raises(DeviceError, match="makes no sense"):
            facts.state(Odd())


def test_a_store_that_somebody_else_wrote_into_is_said(tmp_path):
    device = connect(f"local:{tmp_path}")
    (tmp_path / "serials").write_text("hello\n")
    with pytest.raises(DeviceError, match=r"its store at .* makes no sense(.|\n)*remove the file that is wrong"):
        Store(device).inventory()
