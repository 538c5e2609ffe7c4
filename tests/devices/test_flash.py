"""Flashing: what goes over, and what is refused before anything does."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from edge import bundle as bundles
from edge.devices import install, installed
from edge.devices.address import connect
from edge.devices.install import Wishes, flash
from edge.devices.store import Store
from edge.errors import DeviceError, InputError, UsageError
from tests.devices.bundles import LARGE, whole
from tests.devices.faults import Wrapped
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.usefixtures("quick")


def test_first_then_unchanged_then_a_sibling(memory, folders):
    old, new = folders
    first = flash(old, memory)
    assert first.changed
    assert first.sent_bytes == first.total_bytes > 2 * LARGE
    whole(memory, old)
    counted = Wrapped(memory)
    again = flash(old, counted)
    assert (again.changed, again.sent_bytes) == (False, 0)
    assert counted.verbs == ["inventory"]
    sibling = flash(new, memory)
    assert LARGE < sibling.sent_bytes < LARGE + 10_000
    assert sibling.previous == first.bundle.id
    whole(memory, new)
    assert Store(memory).fsck() == ()


def test_back_and_forth(memory, folders):
    old, new = folders
    flash(old, memory)
    with pytest.raises(DeviceError, match="nothing to go back to"):
        installed.rollback(memory)
    flash(new, memory)
    assert installed.rollback(memory)[0].name == "old"
    whole(memory, old)
    assert installed.rollback(memory)[0].name == "new"
    whole(memory, new)


def test_only_what_runs_and_what_ran_before_are_kept(memory, folders, tmp_path):
    for folder in folders:
        flash(folder, memory)
    tiny_bundle(tmp_path / "third", name="third")
    flash(tmp_path / "third", memory)
    there = Store(memory).inventory()
    assert set(there.bundles) == {there.current, there.previous}
    old = hashlib.sha256((folders[0] / "own weights.bin").read_bytes()).hexdigest()
    assert old not in there.blobs


def test_the_command_at_the_device_starts_what_is_current(device, folders):
    flash(folders[0], device)
    done = device.run([f"{device.root}/bin/edge-chat", "hello"])
    assert (done.code, done.reason) == (64, "it ended with code 64")  # what `quick` starts does not know "ask"
    assert device.run(["sh", f"{device.root}/bin/edge-chat"]).code == 64


def test_remove(memory, folders):
    old, new = folders
    flash(old, memory)
    flash(new, memory)
    with pytest.raises(UsageError, match=r"is what runs(.|\n)*--current"):
        installed.remove(memory, ["new"])
    with pytest.raises(UsageError, match=r"has no bundle 'x'(.|\n)*there are"):
        installed.remove(memory, ["x"])
    gone, freed = installed.remove(memory, [])
    assert gone == (bundles.read(old).id,)
    assert LARGE <= freed < LARGE + 10_000
    whole(memory, new)
    installed.remove(memory, [], current=True)
    there = Store(memory).inventory()
    assert (there.current, there.previous, there.blobs, dict(there.bundles)) == (None, None, {}, {})


# --- the device is unfit


def test_a_bundle_that_fails_there_never_becomes_current(memory, folders, monkeypatch):
    old, new = folders
    flash(old, memory)
    for script, words in {
        "kill -ILL $$": "lacks an instruction",
        "kill -KILL $$": "for want of memory",
        "kill -SEGV $$": "signal 11 ended it",
        'echo \'{"error": "says other tokens"}\'; exit 1': "says other tokens",
        "echo no library >&2; exit 1": "no library",
    }.items():
        monkeypatch.setattr(install.runner, "choose", lambda *_, s=script, **__: install.Runner(s, "sh", ()))
        with pytest.raises(DeviceError, match=rf"fails its self-test there: .*{words}(.|\n)*still does"):
            flash(new, memory)
        assert Store(memory).inventory().current == bundles.read(old).id
        assert bundles.read(new).id not in Store(memory).inventory().bundles


def test_what_runs_is_started_as_before_when_a_new_way_to_start_it_fails(memory, folders, monkeypatch):
    flash(folders[0], memory)
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: install.Runner("exit 9", "sh", ()))
    with pytest.raises(DeviceError, match="fails its self-test"):
        flash(folders[0], memory)
    whole(memory, folders[0])


def test_a_bundle_that_is_too_large_is_refused_before_anything_is_copied(memory, folders, monkeypatch):
    bundle = bundles.read(folders[0])
    big = dataclasses.replace(bundle, memory={"weights_bytes": 1 << 50, "kv_bytes_per_token": 1000})
    bundles.write(big, folders[0])
    counted = Wrapped(memory)
    with pytest.raises(DeviceError, match=r"unfit for old(.|\n)*memory: old needs(.|\n)*nothing was copied"):
        flash(folders[0], counted)
    assert counted.verbs == ["inventory"]
    assert flash(folders[0], memory, Wishes(force=True)).changed


# --- hostile bundles and stores


def manifest(folder, **changes):
    data = json.loads((folder / "edge.json").read_text())
    data.update(changes)
    (folder / "edge.json").write_text(json.dumps(data))


def entry(folder, path):
    data = (folder / path).read_bytes()
    return {"path": path, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\nb", "a\\b", "c:x", "./x", ""])
def test_paths_that_leave_the_bundle_are_refused(memory, folders, path):
    files = json.loads((folders[0] / "edge.json").read_text())["files"]
    manifest(folders[0], files=[*files, {"path": path, "size_bytes": 1, "sha256": "0" * 64}])
    with pytest.raises(InputError, match="names a file outside its bundle"):
        flash(folders[0], memory)


def test_names_that_differ_in_case_alone_are_refused(memory, folders):
    files = json.loads((folders[0] / "edge.json").read_text())["files"]
    manifest(folders[0], files=[*files, {**files[-1], "path": files[-1]["path"].upper()}])
    with pytest.raises(InputError, match="names a file twice"):
        flash(folders[0], memory)


def test_links_and_devices_in_a_bundle_are_refused(memory, folders, tmp_path):
    files = json.loads((folders[0] / "edge.json").read_text())["files"]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (folders[0] / "link").symlink_to(tmp_path / "outside" / "secret")
    manifest(folders[0], files=[*files, entry(folders[0], "link")])
    with pytest.raises(InputError, match="is missing from the bundle"):
        flash(folders[0], memory)
    (folders[0] / "link").unlink()
    (folders[0] / "sub").symlink_to(tmp_path / "outside")
    manifest(folders[0], files=[*files, entry(folders[0], "sub/secret")])
    with pytest.raises(InputError, match="leads elsewhere"):
        flash(folders[0], memory)
    manifest(folders[0], files=[*files, {"path": "null", "size_bytes": 0, "sha256": hashlib.sha256().hexdigest()}])
    (folders[0] / "null").symlink_to("/dev/null")
    with pytest.raises(InputError, match="is missing from the bundle"):
        flash(folders[0], memory)


def test_a_manifest_cannot_list_itself_or_too_much(memory, folders):
    files = json.loads((folders[0] / "edge.json").read_text())["files"]
    bundle = bundles.read(folders[0])
    itself = bundles.File("edge.json", 1, "0" * 64)
    with pytest.raises(InputError, match=r"lists edge\.json among its files"):
        install.contents(folders[0], dataclasses.replace(bundle, files=(*bundle.files, itself)))
    with pytest.raises(InputError, match="no bundle has more than"):
        install.contents(folders[0], dataclasses.replace(bundle, files=(itself,) * 10_001))
    assert files


def test_a_bundle_that_is_damaged_here_is_not_sent(memory, folders):
    path = folders[0] / "shared.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="sha256 is not the manifest's"):
        flash(folders[0], memory)


@pytest.mark.parametrize("name", ["a b", 'it\'s "x"', "$(touch pwned);`id`", "new\nline", "-rf", "ü*?[x]"])
def test_a_store_whose_path_is_hostile(tmp_path, folders, name):
    device = connect(f"local:{tmp_path}/{name}/store")
    flash(folders[0], device)
    whole(device, folders[0])
    assert Store(device).fsck() == ()
    installed.remove(device, [], current=True)
    assert not (tmp_path / "pwned").exists()


def test_names_with_spaces_arrive_as_they_are(memory, tmp_path):
    folder = tmp_path / "odd"
    tiny_bundle(folder, name="odd")
    names = [" leading", "trailing ", "two  spaces", "-n", "a/b c/d", "$HOME", "it's", "*", "x.new"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    bundle = bundles.read(folder)
    (folder / "edge.json").unlink()
    bundles.write(dataclasses.replace(bundle, files=bundles.list_files(folder)), folder)
    flash(folder, memory)
    whole(memory, folder)
    assert Store(memory).fsck() == ()


def test_a_store_that_cannot_be_written(tmp_path, folders):
    (tmp_path / "file").write_text("in the way")
    device = connect(f"local:{tmp_path}/file")
    with pytest.raises(DeviceError, match=r"cannot be (written|entered)"):
        flash(folders[0], device)


def test_files_that_stay_on_the_device_are_read_and_checked(memory, folders):
    flash(folders[0], memory)
    bundle, _ = installed.current(Store(memory))
    shutil.rmtree(install.runner.cache.root() / "installed" / bundle.id, ignore_errors=True)
    found = installed.small_files(Store(memory), bundle)
    assert (found / "tokenizer.json").read_bytes() == (folders[0] / "tokenizer.json").read_bytes()
    assert not (found / "shared.bin").exists()
    shutil.rmtree(found)
    path = Path(memory.root) / "current" / "chat_template.jinja"
    path.chmod(0o644)
    path.write_text("{{ something else }}")
    with pytest.raises(InputError, match=r"chat_template\.jinja of old is damaged there"):
        installed.small_files(Store(memory), bundle)
    shutil.rmtree(found)


def test_nothing_installed(memory):
    with pytest.raises(DeviceError, match="nothing is installed"):
        installed.current(Store(memory))
