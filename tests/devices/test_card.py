"""Bundles in images of cards: tables and file systems by themselves, and a card that a whole machine boots from."""

import json
import os
import shutil
import struct
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import installed, service
from edge.devices.address import connect
from edge.devices.card import ext4, image, partitions
from edge.devices.card.ext4 import Ext4
from edge.devices.device import Done
from edge.devices.install import Wishes, flash
from edge.devices.service import Service
from edge.devices.store import Store
from edge.errors import DeviceError, EdgeError, InputError, MissingError, UsageError
from tests.tiny_bundle import tiny_bundle

MIB = 1 << 20


def mbr(path, *parts, size=8 * MIB):
    """An image with these (type, start, size) in its table."""
    table = b"".join(struct.pack("<4xB3xII", kind, start // 512, length // 512) for kind, start, length in parts)
    path.write_bytes((b"\0" * 446 + table.ljust(64, b"\0") + b"\x55\xaa").ljust(size, b"\0"))
    return path


def gpt(path, start, length):
    head = mbr(path, (0xEE, 512, 4 * MIB)).read_bytes()
    line = b"\1" * 32 + struct.pack("<QQ", start // 512, (start + length) // 512 - 1)
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 4, 128)
    path.write_bytes(head[:512] + header.ljust(512, b"\0") + line.ljust(128, b"\0") + head[512 + 512 + 128 :])
    return path


# --- tables


def test_both_kinds_of_tables_are_read(tmp_path):
    [boot, root] = partitions.read(mbr(tmp_path / "mbr", (0x0C, MIB, MIB), (0x83, 2 * MIB, 4 * MIB)))
    assert (boot.number, root.number, root.start, root.size, root.table) == (1, 2, 2 * MIB, 4 * MIB, "mbr")
    [only] = partitions.read(gpt(tmp_path / "gpt", MIB, 2 * MIB))
    assert (only.start, only.end, only.table) == (MIB, 3 * MIB, "gpt")


def test_a_partition_that_grew_says_so_in_the_table(tmp_path):
    path = mbr(tmp_path / "a", (0x0C, MIB, MIB), (0x83, 2 * MIB, 4 * MIB), size=16 * MIB)
    [boot, root] = partitions.read(path)
    path.write_bytes(partitions.grown(path.read_bytes()[:512], root, 8 * MIB) + path.read_bytes()[512:])
    assert [p.size for p in partitions.read(path)] == [boot.size, 8 * MIB]


@pytest.mark.parametrize(("head", "words"), [
    (b"\xfd7zXZ\0", r"is compressed(.|\n)*xz -dk"), (b"PK\x03\x04", r"is compressed(.|\n)*unzip"),
    (b"hello", "has no partition table"),
])  # fmt: skip
def test_what_is_no_image_is_said(tmp_path, head, words):
    (tmp_path / "x").write_bytes(head.ljust(1024, b"\0"))
    with pytest.raises(InputError, match=words):
        partitions.read(tmp_path / "x")


@pytest.mark.parametrize(("at", "each"), [(1 << 63, 128), ((1 << 64) - 1, 128), (2, 0), (2, (1 << 32) - 1)])
def test_a_table_that_begins_nowhere_has_no_partitions(tmp_path, at, each):
    path = gpt(tmp_path / "gpt", MIB, 2 * MIB)
    data = bytearray(path.read_bytes())
    data[584:600] = struct.pack("<QII", at, 4, each)
    path.write_bytes(data)
    assert partitions.read(path) == ()


def test_an_image_that_was_cut_off_is_refused(tmp_path):
    with pytest.raises(InputError, match="shorter than its partition table says"):
        partitions.read(mbr(tmp_path / "x", (0x83, MIB, 64 * MIB)))


# --- the command


@pytest.mark.parametrize(("words", "said"), [
    (["local", "--in-place"], "are for images of cards"),
    (["image:x", "local"], "one image at a time"),
    (["image:x", "--in-place", "--output", "y"], "exclude each other"),
    (["image:x", "--output", "{here}"], "is there already"),
    (["local", "--host", "kitchen"], "is no address to listen on"),
    (["local", "--port", "0"], "is none from 1 to 65535"),
])  # fmt: skip
def test_what_cannot_be_asked_for(tmp_path, capsys, words, said):
    tiny_bundle(tmp_path / "tiny")
    assert main(["flash", str(tmp_path / "tiny"), *(w.format(here=tmp_path) for w in words)]) == 2
    assert said in capsys.readouterr().err


def test_a_service_is_removed_by_itself(capsys):
    assert main(["remove", "memory:", "--service", "--current"]) == 2
    assert "--service takes the service away, and no bundles" in capsys.readouterr().err
    assert main(["remove", "memory:", "--service"]) == 0
    assert "there was no service" in capsys.readouterr().out


def test_without_e2fsprogs_there_are_no_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    tiny_bundle(tmp_path / "tiny")
    with pytest.raises(MissingError, match=r"images of cards are written by debugfs(.|\n)*e2fsprogs"):
        image.write(tmp_path / "tiny", tmp_path / "x", tmp_path / "y")


# --- the unit


def test_the_unit_reaches_no_other_machine_unless_it_is_asked_to():
    alone = service.unit(Service(), "/srv/a b/100%", 1000)
    assert 'ExecStart="/srv/a b/100%%/bin/edge-serve" --host 127.0.0.1 --port 8080\n' in alone
    assert "IPAddressDeny=any" in alone
    open_ = service.unit(Service("0.0.0.0", 9000), "/srv", 1000)
    assert "IPAddressDeny" not in open_
    assert "--token-file" in open_
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        service.unit(Service(), "/a\nUser=root", 1000)


@pytest.mark.parametrize(("code", "said"), [
    (69, "has no systemd"), (77, "sudo wants a password"), (76, "does not stay up: no more"),
    (1, "cannot be installed: no"),
])  # fmt: skip
def test_what_a_device_cannot_do_for_a_service_is_said(code, said):
    class Refuses:
        address = "ssh://pi"

        def run(self, argv, stdin, timeout_s):
            return Done(code, b"", b"no more\n")

    with pytest.raises(DeviceError, match=said):
        service.install(Refuses(), "/srv", 1000, Service())
    if code != 69:
        with pytest.raises(DeviceError, match=said.replace("installed", "restarted")):
            service.restart(Refuses(), "/srv")
        [note] = service.follow(Refuses(), "/srv")
        assert "was not started anew" in note


@pytest.mark.parametrize("root", ["/srv/edge", "/srv/a b/100%$x"])
def test_only_the_unit_of_this_store_is_followed_and_removed(tmp_path, root):
    """The device's half, with a systemd that writes down what it is told."""
    (tmp_path / "run").mkdir()
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    (tmp_path / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for name in ("systemctl", "sudo"):
        (tmp_path / name).chmod(0o755)

    class Here:
        address = "here"

        def run(self, argv, stdin=b"", timeout_s=0):
            shell, c, script, name, verb, unit, _, *rest = argv
            script = script.replace("/run/systemd/system", str(tmp_path / "run"))
            environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
            done = subprocess.run(
                [shell, c, script, name, verb, unit, str(tmp_path), *rest], input=stdin, env=environment,
                capture_output=True, check=False,
            )  # fmt: skip
            return Done(done.returncode, done.stdout, done.stderr)

    (tmp_path / service.UNIT).write_text(service.unit(Service(), f"/other{root}", 1000))
    assert not service.restart(Here(), root)
    assert not service.remove(Here(), root)
    (tmp_path / service.UNIT).write_text(service.unit(Service(), root, 1000))
    assert service.remove(Here(), root)
    assert not (tmp_path / service.UNIT).exists()
    assert "disable --now" in (tmp_path / "told").read_text()


# --- file systems


@pytest.fixture
def files(tmp_path):
    if ext4.NEED.missing or not shutil.which("mkfs.ext4"):
        pytest.skip("e2fsprogs are not installed")
    path = tmp_path / "fs"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return Ext4(path)


@pytest.mark.rig
def test_a_tree_is_written_with_links_owners_and_modes(files, tmp_path):
    tree = tmp_path / "tree"
    (tree / "var/lib/x y").mkdir(parents=True)
    (tree / "var/lib/x y/one").write_bytes(b"\0" * 5000 + b"end")
    (tree / "var/lib/x y/two").hardlink_to(tree / "var/lib/x y/one")
    (tree / "var/lib/x y/one").chmod(0o555)
    (tree / "var/link").symlink_to("lib/x y")
    files.add(tree, [("/var/lib", 1000)])
    files.whole()
    files.compare(tree)
    said = subprocess.run(["debugfs", "-R", 'stat "/var/lib/x y/two"', str(files.path)], capture_output=True, text=True)
    assert "Mode:  0555" in said.stdout
    assert "User:  1000" in said.stdout
    assert "Links: 2" in said.stdout
    assert files.read("/var/lib/x y/one") == b"\0" * 5000 + b"end"
    assert files.read("/nothing") is None
    (tree / "var/lib/x y/one").chmod(0o755)
    (tree / "var/lib/x y/one").write_bytes(b"other")
    with pytest.raises(EdgeError, match="is not what was written"):
        files.compare(tree)
    with pytest.raises(EdgeError, match="the image cannot be written: "):
        files.add(tree)


@pytest.mark.rig
def test_it_grows_and_what_is_damaged_is_refused(files, tmp_path):
    before = files.free_bytes
    files.grow(32 * MIB)
    assert files.free_bytes > before + 14 * MIB
    files.path.write_bytes(b"\0" * 16 * MIB)
    with pytest.raises(InputError, match="the root file system is damaged"):
        files.mend()
    with pytest.raises(EdgeError, match="was not written well"):
        files.whole()
    with pytest.raises(EdgeError, match="cannot be grown"):
        files.grow(33 * MIB)
    (tmp_path / 't"').mkdir()
    with pytest.raises(InputError, match="has a quote or a newline"):
        files.add(tmp_path)


@pytest.mark.rig
def test_images_of_other_systems_are_refused(files, tmp_path):
    tiny_bundle(tmp_path / "tiny")
    path = mbr(tmp_path / "img", (0x83, 2 * MIB, 16 * MIB), size=18 * MIB)

    def put():
        path.write_bytes(path.read_bytes()[: 2 * MIB] + files.path.read_bytes())

    put()
    with pytest.raises(InputError, match="no partition with a Linux system"):
        image.write(tmp_path / "tiny", path, tmp_path / "out")
    (tmp_path / "tree/usr/lib").mkdir(parents=True)
    (tmp_path / "tree/usr/bin").mkdir()
    (tmp_path / "tree/usr/lib/os-release").write_text('PRETTY_NAME="Some Linux"\n')
    (tmp_path / "tree/usr/bin/dash").write_bytes(b"\x7fELF\x01")
    files.add(tmp_path / "tree")
    put()
    with pytest.raises(InputError, match="holds Some Linux, but not for 64-bit Arm"):
        image.write(tmp_path / "tiny", path, tmp_path / "out")
    with pytest.raises(InputError, match="is no file"):
        image.write(tmp_path / "tiny", tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.rig
@pytest.mark.parametrize("person", ["pi:x:1000:1000:,,,:/home/pi:/bin/bash\n", ""])
def test_what_is_written_belongs_to_the_first_person_or_else_to_root(files, tmp_path, person):
    (tmp_path / "etc/etc").mkdir(parents=True)
    (tmp_path / "etc/etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/bash\n{person}")
    files.add(tmp_path / "etc")
    tree = tmp_path / "tree"
    owners = image._around(tree, files, Service())
    text = (tree / "etc/systemd/system/edge-serve.service").read_text()
    if person:
        assert owners == [("/var/lib/edge", 1000), ("/home/pi", 1000)]
        assert (tree / "home/pi/.local/share/edge").readlink().as_posix() == "/var/lib/edge"
        assert "\nUser=1000\n" in text
    else:
        assert owners == []
        assert "\nUser=0\n" in text


@pytest.mark.rig
def test_a_partition_that_cannot_grow_is_refused_with_what_to_do(files, tmp_path):
    path = gpt(tmp_path / "gpt", MIB, 2 * MIB)
    with pytest.raises(InputError, match=r"cannot be grown here \(its table is a GPT\)(.|\n)*truncate -s"):
        image._grow(files, partitions.read(path)[0], path, 100 * MIB)
    path = mbr(tmp_path / "mbr", (0x83, MIB, MIB), (0x83, 2 * MIB, MIB))
    with pytest.raises(InputError, match="it is not the last one"):
        image._grow(files, partitions.read(path)[0], path, 100 * MIB)
    assert image._grow(files, partitions.read(path)[1], path, 1) == 0


# --- a card that is booted


def asked(rig, words, port=8080, patience_s=300):
    """What the server there answers."""
    end = time.monotonic() + patience_s
    with rig.forwarded(port) as url:
        while True:
            try:
                with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as said:
                    model = json.load(said)["data"][0]["id"]
                body = {"model": model, "messages": [{"role": "user", "content": words}]}
                request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
                request.add_header("Content-Type", "application/json")
                with urllib.request.urlopen(request, timeout=60) as said:
                    return model, json.load(said)["choices"][0]["message"]["content"]
            except (urllib.error.URLError, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(1)


@pytest.mark.rig
def test_a_card_answers_at_its_first_boot(booted):
    rig, folder = booted
    model, said = asked(rig, "hello there")
    assert model.startswith("tiny")
    assert said == "hello there"
    assert rig.run("edge-chat hello").stdout.strip() == "hello"
    name = bundles.read(folder / "tiny").id
    assert "untested" not in rig.run("ls /var/lib/edge/refs").stdout
    # A flash by the card's first user finds that store, and nothing to do.
    device = connect(rig.address)
    assert not flash(folder / "tiny", device).changed
    there = Store(device).inventory()
    assert (there.current, there.root, there.served) == (name, "/var/lib/edge", "127.0.0.1 8080")
    device.close()


@pytest.mark.rig
def test_the_service_follows_a_flash_and_a_rollback_and_goes(booted):
    rig, folder = booted
    tiny_bundle(folder / "other", name="other")
    device = connect(rig.address)
    try:
        assert flash(folder / "other", device).notes == ()
        assert asked(rig, "which?")[0].startswith("other")
        assert installed.rollback(device)[0].name == "tiny"
        assert "bundles/" + bundles.read(folder / "tiny").id in rig.run("systemctl status edge-serve --no-pager").stdout
        assert installed.stop_serving(device)
        assert rig.run("systemctl is-active edge-serve; ls /etc/systemd/system").stdout.startswith("inactive")
        flash(folder / "tiny", device, Wishes(service=Service(port=8090)))
        assert asked(rig, "again", 8090)[1] == "again"
        installed.remove(device, [], current=True)
        assert "edge-serve" not in rig.run("ls /etc/systemd/system").stdout
    finally:
        device.close()
