"""Whose bundle it is, and which is newer: what holds, what does not, and what a device remembers."""

import base64
import json

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import signature
from edge.devices.install import Wishes, flash
from edge.devices.store import Inventory, Store
from edge.errors import InputError, UsageError

pytest.importorskip("cryptography")


@pytest.fixture
def key(tmp_path):
    signature.make_key(tmp_path / "my.key")
    return tmp_path / "my.key"


def signed(folder, key, serial=None):
    return signature.sign(folder, bundles.read(folder), key, serial)


def test_a_key_is_for_its_owner_and_never_written_over(key):
    assert key.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="is there already"):
        signature.make_key(key)
    assert len(base64.b64decode(signature.public_key(str(key)))) == 32
    with pytest.raises(UsageError, match="is no public key and no file"):
        signature.public_key("c2hvcnQ=")
    with pytest.raises(UsageError, match="is no public key"):
        signature.public_key("not base64!")


def test_a_signature_holds_until_something_changes(folders, key):
    old, _ = folders
    bundle = bundles.read(old)
    assert signature.check(old, bundle) is None
    made = signed(old, key, 7)
    assert signature.check(old, bundle) == made
    assert made.serial == 7
    path = old / signature.FILE
    text = path.read_text()
    for change, words in {
        text.replace('"serial": 7', '"serial": 8'): "does not hold",
        text.replace('"key": "', '"key": "A'): "is no signature",
        "{}": "is no signature",
        "[]": "is no signature",
        "{" * 3: "is no signature",
        " " * 20_000: "too large",
    }.items():
        path.write_text(change)
        with pytest.raises(InputError, match=words):
            signature.check(old, bundle)
    path.write_text(text)
    data = json.loads((old / "edge.json").read_text())
    data["licence"] = "mine"
    (old / "edge.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="signs another manifest"):
        signature.check(old, bundles.read(old))


def test_keys_that_are_none(tmp_path, folders):
    with pytest.raises(UsageError, match="there is no key"):
        signed(folders[0], tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="holds no private key"):
        signed(folders[0], tmp_path / "text")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    other = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(InputError, match="is no Ed25519 key"):
        signed(folders[0], tmp_path / "other")


@pytest.mark.parametrize(
    ("given", "there", "wishes", "words"),
    [
        (None, {}, {}, None),
        (None, {}, {"require_signature": True}, "is not signed, and a signature was required"),
        (None, {"key": "A"}, {}, "takes bundles of one key only"),
        (("A", 1), {"key": "A"}, {}, None),
        (("B", 1), {"key": "A"}, {}, r"signed with the key B, and pi takes A(.|\n)*--key B"),
        (("B", 1), {"key": "A"}, {"key": "B"}, None),
        (("A", 1), {}, {"key": "B"}, "signed with the key A"),
        (("A", 1), {"serial": 2}, {}, r"number 1 is older than what pi had(.|\n)*--allow-downgrade"),
        (("A", 1), {"serial": 2}, {"allow_downgrade": True}, None),
        (("A", 2), {"serial": 2}, {}, None),
    ],
)
def test_what_a_device_may_take(folders, given, there, wishes, words):
    bundle = bundles.read(folders[0])
    serials = {signature._short(bundle.name): there["serial"]} if "serial" in there else {}
    inventory = Inventory(0, key=there.get("key"), serials=serials)
    one = signature.Signed(*given) if given else None
    if words is None:
        signature.admit(one, bundle, inventory, "pi", Wishes(**wishes))
    else:
        with pytest.raises(InputError, match=words):
            signature.admit(one, bundle, inventory, "pi", Wishes(**wishes))


@pytest.mark.usefixtures("quick")
def test_a_device_remembers_the_key_and_the_number(memory, folders, key):
    old, new = folders
    signed(old, key, 5)
    flash(old, memory, Wishes(require_signature=True))
    there = Store(memory).inventory()
    assert there.key == signature.public_key(str(key))
    assert list(there.serials.values()) == [5]
    with pytest.raises(InputError, match="takes bundles of one key only"):
        flash(new, memory)
    signed(old, key, 4)
    with pytest.raises(InputError, match="is older than"):
        flash(old, memory)
    assert Store(memory).inventory().current == bundles.read(old).id
    flash(old, memory, Wishes(allow_downgrade=True))


def test_the_verb(folders, tmp_path, capsys):
    assert main(["sign", "--new-key", str(tmp_path / "k"), "--json"]) == 0
    public = json.loads(capsys.readouterr().out)["public_key"]
    assert main(["sign", str(folders[0]), "--key", str(tmp_path / "k"), "--serial", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == public
    assert main(["sign", str(folders[0])]) == 2
    assert "wanted a bundle and a key" in capsys.readouterr().err


@pytest.mark.parametrize("signed_by_hand", ["[" * 9000, '{"signed": ' + "[" * 5000, "{}"])
def test_what_was_made_to_be_read_in_vain_is_no_signature(folders, signed_by_hand):
    (folders[0] / signature.FILE).write_text(signed_by_hand)
    with pytest.raises(InputError, match="is no signature"):
        signature.check(folders[0], bundles.read(folders[0]))


@pytest.mark.parametrize("number", [float("inf"), 1.5, True, "7", -1, 1 << 63])
def test_a_number_that_is_none_signs_nothing(folders, key, number, monkeypatch):
    with pytest.raises(UsageError, match="is no number to sign with"):
        signed(folders[0], key, -1)
    real = signature._canonical
    monkeypatch.setattr(signature, "_canonical", lambda data: real({**data, "serial": 3}))
    signed(folders[0], key, 3)
    path = folders[0] / signature.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "signed": {
        **json.loads(path.read_text())["signed"], "serial": number}}))  # fmt: skip
    with pytest.raises(InputError, match="its number is"):
        signature.check(folders[0], bundles.read(folders[0]))


def test_a_card_takes_what_is_signed_and_remembers_by_whom(folders, key, tmp_path, monkeypatch, capsys):
    from edge.devices.card import image
    from edge.devices.kinds.local import Local
    from edge.devices.needs import Need
    from edge.devices.runner import Runner
    from edge.devices.service import Service

    monkeypatch.setattr(image.ext4, "NEED", Need("cards", ("sh",), "", ""))
    asked = ["flash", str(folders[0]), f"image:{tmp_path / 'x'}"]
    assert main([*asked, "--require-signature"]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main([*asked, "--root", "/x"]) == 2
    assert "--root is for devices" in capsys.readouterr().err
    made = signed(folders[0], key, 9)
    assert main([*asked, "--key", base64.b64encode(b"k" * 32).decode()]) == 1
    assert "is signed with the key" in capsys.readouterr().err
    assert main([*asked, "--key", made.key]) == 1
    assert "is no file" in capsys.readouterr().err
    bundle = bundles.read(folders[0])
    image._store(
        tmp_path / "s", folders[0], bundle, Runner("", "sh", ()), Service(), made, Wishes(require_signature=True)
    )
    there = Store(Local(str(tmp_path / "s"))).inventory()
    assert (there.current, there.key, list(there.serials.values())) == (bundle.id, made.key, [9])
