"""What the person who flashes sees when it goes wrong: the reason, the exit code, and that what ran still runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import book, install, store
from edge.devices.address import connect
from edge.devices.install import flash
from edge.devices.runner import Runner
from edge.devices.store import Store
from tests.devices import powercuts
from tests.devices.bundles import LARGE, whole
from tests.devices.faults import Cut, Dies, Flips

pytestmark = [pytest.mark.rig, pytest.mark.usefixtures("quick")]


@pytest.fixture
def command(memory, folders, monkeypatch):
    """`command(device)` flashes `new` to it by the command, where `old` runs; what it gives is the exit code."""
    flash(folders[0], memory)
    monkeypatch.setattr(install, "_TRIES", 2)

    def run(device, *words):
        monkeypatch.setattr(book.Target, "connect", lambda self: device)
        monkeypatch.setattr(memory, "close", lambda: None)
        return main(["flash", str(folders[1]), "memory:", "-q", *words])

    yield run
    monkeypatch.undo()


def starts(monkeypatch, script):
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: Runner(script, "sh", ()))


def manifest(folder, path):
    data = json.loads((folder / "edge.json").read_text())
    data["files"].append({"path": path, "size_bytes": 0, "sha256": "0" * 64})
    (folder / "edge.json").write_text(json.dumps(data))


# Fault -> what it does to (the device, the folder of the new bundle, monkeypatch), giving the device to flash.
FAULTS = {
    "a link that stays broken": (lambda d, f, m: Cut(d, 1000, times=99), 4, "the link broke"),
    "a death before the switch": (lambda d, f, m: Dies(d, "switch", after=False), 4, "the link broke"),
    "a bit that flips": (lambda d, f, m: Flips(d, times=99), 1, "arrived damaged"),
    "a processor without an instruction": (
        lambda d, f, m: starts(m, "kill -ILL $$") or d, 4, "its processor lacks an instruction",
    ),
    "too little memory to load": (lambda d, f, m: starts(m, "kill -KILL $$") or d, 4, "for want of memory"),
    "other tokens": (lambda d, f, m: starts(m, "echo '{\"error\": \"says other\"}'; exit 1") or d, 4, "says other"),
    "a path that leaves the bundle": (lambda d, f, m: manifest(f, "../x") or d, 1, "a file outside its bundle"),
    "a pipe in place of a file": (
        lambda d, f, m: (os.mkfifo(f / "pipe"), manifest(f, "pipe")) and d, 1, "is missing from the bundle",
    ),
    "a file that was cut off": (
        lambda d, f, m: os.truncate(f / "shared.bin", LARGE // 2) or d, 1, "the manifest says",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_it_says_how_it_ends_and_what_runs(name, command, memory, folders, monkeypatch, capsys):
    doing, code, words = FAULTS[name]
    assert command(doing(memory, folders[1], monkeypatch)) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert Store(memory).inventory().current == bundles.read(folders[0]).id


def test_a_link_cut_after_any_write_leaves_something_whole(memory, folders, monkeypatch):
    """After each of its writes; what comes through at each try is kept, so the bundle is taken away again."""
    old, new = folders
    monkeypatch.setattr(install, "_TRIES", 1)
    flash(old, memory)
    for after in range(1, LARGE, store._CHUNK):
        with pytest.raises(install.LinkLost):
            flash(new, Cut(memory, after))
        assert Store(memory).inventory().current == bundles.read(old).id
        for part in (Path(memory.root) / "blobs").glob("*.part"):
            part.unlink()
    whole(memory, old)
    flash(new, memory)
    whole(memory, new)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_while_a_runtime_is_unpacked(memory, folders, monkeypatch, after):
    old, new = folders
    monkeypatch.setattr(install, "_TRIES", 1)
    flash(old, memory)
    monkeypatch.setattr(install.runner, "choose", powercuts.quick)
    with pytest.raises(install.LinkLost):
        flash(new, Dies(memory, "unpack", after=after))
    assert Store(memory).inventory().current == bundles.read(old).id
    flash(new, memory)
    whole(memory, new)
    assert Store(memory).fsck() == ()


def test_of_several_devices_one_that_fails_leaves_the_others_right(tmp_path, folders, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    listed = {"good": tmp_path / "one", "bad": tmp_path / "file", "also": tmp_path / "two"}
    text = "".join(f'[{name}]\naddress = "local:{path}"\n' for name, path in listed.items())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/edge").mkdir(parents=True)
    (tmp_path / "config/edge/devices.toml").write_text(text)
    assert main(["flash", str(folders[0]), "--all", "--jobs", "2", "-q"]) == 4
    said = capsys.readouterr()
    assert "2 of 3 devices have it" in said.out
    assert said.err.startswith("bad: ")
    for name in ("good", "also"):
        whole(connect(f"local:{listed[name]}"), folders[0])
    assert main(["flash", str(folders[0]), "--all", "--json"]) == 4
    found = json.loads(capsys.readouterr().out)["devices"]
    assert [(one["device"], one.get("changed"), one.get("code")) for one in found] == [
        ("good", False, None), ("bad", None, 4), ("also", False, None),
    ]  # fmt: skip
