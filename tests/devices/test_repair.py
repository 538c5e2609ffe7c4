"""edge fsck: every kind of damage is found, named, and put right as far as it can be."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import repair
from edge.devices.install import flash
from tests.devices.bundles import whole

pytestmark = [pytest.mark.rig, pytest.mark.usefixtures("quick")]


def blob(device, folder, name):
    return Path(device.root) / "blobs" / f"sha256-{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


def spoil(path, how):
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "zeroed":
        path.write_bytes(bytes(len(data)))
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()


@pytest.fixture
def both(memory, folders):
    for folder in folders:
        flash(folder, memory)
    return memory


@pytest.mark.parametrize("how", ["flipped", "zeroed", "truncated", "gone"])
def test_a_file_of_what_runs(both, folders, how):
    _, new = folders
    spoil(blob(both, new, "own weights.bin"), how)
    found = repair.fsck(both)
    assert {f.what for f in found.faults} == {"missing" if how == "gone" else "damaged"}
    assert found.exit_code == 1
    assert repair.fsck(both).faults == found.faults  # nothing was changed
    mended = repair.fsck(both, repair=True, sources=[new])
    assert (mended.left, mended.exit_code) == ((), 0)
    whole(both, new)


def test_without_a_source_the_previous_one_runs(both, folders):
    old, new = folders
    spoil(blob(both, new, "own weights.bin"), "flipped")
    found = repair.fsck(both, repair=True)
    assert found.current == bundles.read(old).id
    whole(both, old)
    flash(new, both)
    whole(both, new)


def test_a_link_that_leads_elsewhere_and_a_torn_bundle(both, folders):
    old, new = folders
    root = Path(both.root)
    name = bundles.read(new).id
    (root / "bundles" / name / "shared.bin").unlink()
    (root / "bundles" / name / "shared.bin").write_text("somebody else's")
    shutil.rmtree(root / "bundles" / bundles.read(old).id)
    (root / "bundles" / "stray").mkdir()
    found = {(f.what, f.name) for f in repair.fsck(both).faults}
    assert found >= {("unlinked", name), ("torn", bundles.read(old).id), ("torn", "stray")}
    assert repair.fsck(both, repair=True).left == ()
    whole(both, new)


def test_nothing_there(memory):
    assert repair.fsck(memory).faults == ()


def test_the_verb(both, folders, capsys, monkeypatch):
    from edge.devices import book

    monkeypatch.setattr(book.Target, "connect", lambda self: both)
    monkeypatch.setattr(both, "close", lambda: None)
    assert main(["fsck", "x"]) == 0
    assert "everything is as it should be" in capsys.readouterr().out
    spoil(blob(both, folders[1], "shared.bin"), "flipped")
    assert main(["fsck", "x"]) == 1
    assert "a file is damaged" in capsys.readouterr().out
    assert main(["fsck", "x", "--repair", "--from", str(folders[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []
    spoil(blob(both, folders[1], "own weights.bin"), "flipped")
    assert main(["fsck", "x", "--repair"]) == 1
    old, new = (bundles.read(folder).id for folder in folders)
    assert f"{old} runs now, in place of {new}; left: bundle {new} lacks a file" in capsys.readouterr().out
