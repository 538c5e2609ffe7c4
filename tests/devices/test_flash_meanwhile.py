"""What somebody else does to a device between a look at it and the lock, and what a flash that failed leaves behind."""

import dataclasses
import io
import tarfile

import pytest

from edge import bundle as bundles
from edge.bundle import sha256_of
from edge.devices import install, installed, repair, signature
from edge.devices.device import Done, LinkLost
from edge.devices.install import Wishes, flash
from edge.devices.runner import Pack, Runner
from edge.devices.store import Entry, Store
from edge.errors import DeviceError, InputError, UsageError
from tests.devices.bundles import whole
from tests.devices.faults import Wrapped
from tests.tiny_bundle import tiny_bundle

pytestmark = [pytest.mark.rig, pytest.mark.usefixtures("quick")]


@pytest.fixture
def meanwhile(monkeypatch):
    """`meanwhile(act)`: `act` is called once, just before the next lock is taken."""
    real, waiting = Store.hold, []

    def hold(self):
        if waiting:
            waiting.pop()()
        return real(self)

    monkeypatch.setattr(Store, "hold", hold)
    return waiting.append


def test_a_key_that_is_pinned_while_a_flash_looks_around_is_heeded(memory, folders, tmp_path, meanwhile):
    pytest.importorskip("cryptography")
    old, new = folders
    signature.make_key(tmp_path / "key")
    signature.sign(old, bundles.read(old), tmp_path / "key")
    meanwhile(lambda: flash(old, memory, Wishes(require_signature=True)))
    with pytest.raises(InputError, match="takes bundles of one key only"):
        flash(new, memory)
    whole(memory, old)


def test_what_became_current_meanwhile_is_not_removed(memory, folders, meanwhile):
    for folder in folders:
        flash(folder, memory)
    meanwhile(lambda: installed.rollback(memory))
    with pytest.raises(UsageError, match="is what runs"):
        installed.remove(memory, ["old"])
    whole(memory, folders[0])


def test_what_there_was_to_go_back_to_may_be_gone_meanwhile(memory, folders, meanwhile):
    for folder in folders:
        flash(folder, memory)
    meanwhile(lambda: installed.remove(memory, []))
    with pytest.raises(DeviceError, match="nothing to go back to any more"):
        installed.rollback(memory)
    whole(memory, folders[1])


def test_a_key_is_pinned_although_the_bundle_runs_there_already(memory, folders, tmp_path):
    pytest.importorskip("cryptography")
    signature.make_key(tmp_path / "key")
    signed = signature.sign(folders[0], bundles.read(folders[0]), tmp_path / "key", 5)
    flash(folders[0], memory)
    assert Store(memory).inventory().key is None
    assert not flash(folders[0], memory, Wishes(key=signed.key)).changed
    assert Store(memory).inventory().key == signed.key
    with pytest.raises(InputError, match="takes bundles of one key only"):
        flash(folders[1], memory)


def pack(folder, name, content):
    """A runtime of one file, which `started` needs to be there."""
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        info = tarfile.TarInfo("says")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    path = folder / f"{name}.tar"
    return Pack(name, Entry(sha256_of(path), path.name, path.stat().st_size, path))


def started(one):
    return Runner(f'cat "${{0%/*}}/../packs/{one.id}/says"', "sh", (one,))


def test_the_runtime_of_what_runs_outlives_a_newer_one_that_fails(memory, folders, tmp_path, monkeypatch):
    old, new = folders
    good, bad = pack(tmp_path, "pack-1", b'{"tokens": [1]}'), pack(tmp_path, "pack-2", b'{"error": "no"}')
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: started(good))
    flash(old, memory)
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: started(bad))
    for folder in (old, new):
        with pytest.raises(DeviceError, match="fails its self-test"):
            flash(folder, memory)
    installed.remove(memory, [])
    whole(memory, old)
    assert Store(memory).fsck() == ()
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: started(good))
    flash(new, memory)
    installed.remove(memory, [])
    assert Store(memory).inventory().packs == {"pack-1"}


@pytest.mark.parametrize("verb", ["stage", "unpack"])
def test_a_list_that_a_broken_link_cut_short_is_none(memory, folders, tmp_path, monkeypatch, verb):
    """Over adb a cable that is pulled looks like the end of what was sent."""

    class Short(Wrapped):
        cuts = 1

        def run(self, argv, stdin=b"", timeout_s=60.0):
            if argv[3:5] == ["store", verb] and self.cuts:
                self.cuts -= 1
                stdin = stdin[: stdin.index(b"\n") + 1] if verb == "stage" else b""
            return super().run(argv, stdin, timeout_s)

    one = pack(tmp_path, "pack-1", b'{"tokens": [1]}')
    large = Entry(sha256_of(folders[0] / "shared.bin"), "large", (folders[0] / "shared.bin").stat().st_size,
                  folders[0] / "shared.bin")  # fmt: skip
    one = dataclasses.replace(one, large=(large,))
    monkeypatch.setattr(install.runner, "choose", lambda *_, **__: started(one))
    device = Short(memory)
    assert flash(folders[0], device).changed
    assert device.verbs.count(verb) == 2
    whole(memory, folders[0])
    assert Store(memory).fsck() == ()


def test_another_flash_that_sent_part_of_a_file_meanwhile_is_said(memory, folders):
    flash(folders[0], memory)
    entry = install.contents(folders[1], bundles.read(folders[1]))[0]
    with Store(memory).hold() as held, pytest.raises(LinkLost, match=r"it has 0 bytes of .*, not 1"):
        held.put(entry, 1)


def test_a_system_without_flock_is_said(memory):
    with pytest.raises(DeviceError, match=r"its system has no flock(.|\n)*util-linux"):
        Store(memory)._raise("hold", Done(69, b"", b"there is no flock"))


def test_what_starts_a_bundle_can_be_lost_and_comes_back(memory, folders):
    old, new = (bundles.read(folder).id for folder in folders)
    for folder in folders:
        flash(folder, memory)
    memory.run(["rm", f"{memory.root}/refs/{new}.start"])
    found = repair.fsck(memory)
    assert [repair.words(fault) for fault in found.faults] == [f"what starts bundle {new} is lost"]
    assert repair.fsck(memory, repair=True).current == old
    assert flash(folders[1], memory).changed
    assert repair.fsck(memory).faults == ()


def test_a_name_that_several_bundles_have_means_none_of_them(memory, tmp_path):
    for i in (1, 2):
        tiny_bundle(tmp_path / str(i), name="same", context_length=512 * i)
        flash(tmp_path / str(i), memory)
    with pytest.raises(UsageError, match=r"has 2 bundles called same(.|\n)*say which: .*\(same echo none\)"):
        installed.remove(memory, ["same"])
    name = bundles.read(tmp_path / "1").id
    assert installed.remove(memory, [name])[0] == (name,)
