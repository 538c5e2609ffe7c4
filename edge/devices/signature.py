"""Who made this bundle: an Ed25519 signature over its manifest, which names every file's sha256.

    edge.sig    {"key": base64, "signed": {"name", "manifest_sha256", "serial"}, "signature": base64}

The serial number only grows (it is the time of signing unless given), so that a device can tell an
older bundle from a newer one without a clock of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import MANIFEST, Bundle, sha256_of
from edge.errors import InputError, UsageError, require

if TYPE_CHECKING:
    from edge.devices.install import Wishes
    from edge.devices.store import Held, Inventory

FILE = "edge.sig"
_LIMIT_BYTES = 1 << 14


@dataclass(frozen=True)
class Signed:
    """A signature that holds: the public key in base64, and the serial number."""

    key: str
    serial: int


def make_key(path: Path) -> str:
    """A new private key at `path`, for its owner alone; gives the public one."""
    require("cryptography", extra="sign", purpose="signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already", hint="a key that is lost cannot be made again; choose another name"
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(text)
    return _public(key.public_key())


def sign(folder: Path, bundle: Bundle, key_file: Path, serial: int | None = None) -> Signed:
    """Write `edge.sig` into a bundle."""
    key = _private(key_file)
    number = int(time.time()) if serial is None else serial
    if not 0 <= number < 1 << 63:
        raise UsageError(f"{number} is no number to sign with: it grows from 0")
    signed = {"name": bundle.name, "manifest_sha256": sha256_of(folder / MANIFEST), "serial": number}
    made: dict[str, Any] = {
        "key": _public(key.public_key()),
        "signed": signed,
        "signature": base64.b64encode(key.sign(_canonical(signed))).decode(),
    }
    part = folder / f".{FILE}.{os.getpid()}"
    part.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / FILE)
    return Signed(made["key"], number)


def check(folder: Path, bundle: Bundle) -> Signed | None:
    """Who signed the bundle; `None` when nobody did. `InputError` when the signature does not hold."""
    path = folder / FILE
    if not path.is_file():
        return None
    require("cryptography", extra="sign", purpose=f"checking {path}")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        signed, key = dict(found["signed"]), str(found["key"])
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        public.verify(base64.b64decode(found["signature"], validate=True), _canonical(signed))
        serial = signed["serial"]
        if not isinstance(serial, int) or isinstance(serial, bool) or not 0 <= serial < 1 << 63:
            raise ValueError(f"its number is {serial!r:.40}")
    except InvalidSignature:
        raise InputError(
            f"{path}: the signature does not hold", hint="somebody changed it; get the bundle again"
        ) from None
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise InputError(f"{path} is no signature: {err}", hint="sign it again, or get the bundle again") from err
    if signed.get("manifest_sha256") != sha256_of(folder / MANIFEST) or signed.get("name") != bundle.name:
        raise InputError(
            f"{path} signs another manifest than {MANIFEST}", hint="somebody changed it; get the bundle again"
        )
    return Signed(key, serial)


def admit(signed: Signed | None, bundle: Bundle, there: Inventory, address: str, wishes: Wishes) -> None:
    """Raise `InputError` unless the device may take the bundle.

    1. Where a key is pinned, or asked for, the bundle must be signed with it.
    2. Where a signature is required, there must be one.
    3. A serial number below that of the last bundle of this name is a downgrade.
    """
    wanted = wishes.key or there.key
    if signed is None:
        if wanted or wishes.require_signature:
            why = f"{address} takes bundles of one key only" if wanted else "a signature was required"
            raise InputError(
                f"{bundle.name} is not signed, and {why}", hint="sign it with: edge sign BUNDLE --key FILE"
            )
        return
    if wanted and signed.key != wanted:
        raise InputError(
            f"{bundle.name} is signed with the key {signed.key}, and {address} takes {wanted}",
            hint=f"if the new key is right, pin it: --key {signed.key}",
        )
    last = there.serials.get(_short(bundle.name))
    if last is not None and signed.serial < last and not wishes.allow_downgrade:
        raise InputError(
            f"{bundle.name} number {signed.serial} is older than what {address} had (number {last})",
            hint="if that is what you want: --allow-downgrade",
        )


def note(held: Held, signed: Signed | None, there: Inventory, bundle: Bundle, wishes: Wishes) -> None:
    """Let the device remember the key, if one was asked for, and the serial number."""
    if signed is not None:
        held.pin(_pinned(signed, there, wishes), _short(bundle.name), signed.serial)


def noted(signed: Signed | None, there: Inventory, bundle: Bundle, wishes: Wishes) -> bool:
    """Whether the device remembers all of that already."""
    return signed is None or (
        there.serials.get(_short(bundle.name)) == signed.serial and (there.key or "") == _pinned(signed, there, wishes)
    )


def newly_pinned(signed: Signed, there: Inventory, wishes: Wishes) -> str | None:
    """The key that the device takes alone from now on, where it did not before."""
    pinned = _pinned(signed, there, wishes)
    return pinned if pinned and pinned != there.key else None


def _pinned(signed: Signed, there: Inventory, wishes: Wishes) -> str:
    return signed.key if wishes.require_signature or wishes.key or there.key else ""


def public_key(text: str) -> str:
    """A public key in base64, as it is given, or from a file that holds a key. Raises `UsageError`."""
    path = Path(text).expanduser()
    if path.is_file():
        return _public(_private(path).public_key())
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise UsageError(f"{text!r} is no public key and no file with a key", hint="edge sign --new-key FILE shows one")
    return text


def _short(name: str) -> str:
    """A bundle's name where anything else could be mistaken for something."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _private(path: Path) -> Any:
    require("cryptography", extra="sign", purpose="signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.is_file():
        raise UsageError(f"there is no key {path}", hint=f"make one with: edge sign --new-key {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as err:
        raise InputError(f"{path} holds no private key without a passphrase: {err}") from err
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is no Ed25519 key", hint=f"make one with: edge sign --new-key {path}.new")
    return key


def _public(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def _canonical(signed: dict[str, Any]) -> bytes:
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
