"""What is on a device already: look at it, go back, take it away, and its small files for whoever talks to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge import cache
from edge.bundle import MANIFEST, Bundle, sha256_of
from edge.devices import book, facts, install, service
from edge.devices.device import Device
from edge.devices.store import Inventory, Store
from edge.errors import DeviceError, InputError, UsageError
from edge.find import load, names

_MANIFEST_LIMIT_BYTES = 16 << 20
_WEIGHTS = (".gguf", ".onnx", ".data", ".tflite", ".litertlm", ".safetensors", ".bin", ".npy", ".pte")
_SMALL_BYTES = 64 << 20


def known() -> tuple[book.Target, ...]:
    """Devices of the device file, those that a kind sees by itself, and this machine."""
    found = dict(book.read())
    addresses = {t.address for t in found.values()}
    for kind in names("edge.devices.kinds"):
        for address in getattr(load("edge.devices.kinds", kind), "found", list)():
            if address not in addresses:
                found[address] = book.Target(address, address)
    found.setdefault("local", book.Target("local", "local"))
    return tuple(found.values())


def look(device: Device, root: str | None = None) -> dict[str, Any]:
    """What the device is, how it is now, and what is in its store; as JSON."""
    asked = facts.ask(device, device.python)
    store = Store(device, root)
    there = store.inventory()
    held = [manifest(store, name) for name in sorted(there.bundles)]
    return {
        "address": device.address, "facts": asked.record(), "state": asked.state.record() if asked.state else {},
        "root": there.root, "free_bytes": there.free_bytes, "used_bytes": there.used_bytes,
        "current": there.current, "previous": there.previous, "key": there.key,
        "served": there.served, "packs": sorted(there.packs),
        "bundles": [
            {k: getattr(b, k) for k in ("id", "name", "format", "quantization", "family", "size_bytes", "proven")}
            for b in held
        ],
    }  # fmt: skip


def manifest(store: Store, name: str) -> Bundle:
    """The manifest of a bundle that is there, whose id it must have."""
    path = f"{store.root}/bundles/{name}/{MANIFEST}"
    done = store.device.run(["head", "-c", str(_MANIFEST_LIMIT_BYTES), path])
    where = f"{store.device.address}: {path}"
    if done.code:
        raise InputError(f"{where} cannot be read: {done.reason}", hint="edge fsck DEVICE --repair puts it right")
    try:
        bundle = bundles.parse(json.loads(done.text), where)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where} is damaged: {err}", hint="edge fsck DEVICE --repair puts it right") from err
    if bundle.id != name:
        raise InputError(f"{where} is damaged: it is {bundle.id}", hint="edge fsck DEVICE --repair puts it right")
    return bundle


def current(store: Store, wanted: str | None = None) -> tuple[Bundle, Inventory]:
    """The manifest of what runs there, or of the bundle called `wanted` (an id, or a name)."""
    there = store.inventory()
    if wanted is None:
        if there.current is None:
            raise DeviceError(f"nothing is installed on {store.device.address}", hint="edge flash BUNDLE DEVICE")
        return manifest(store, there.current), there
    return _find(store, there, wanted), there


def named(bundle: Path | str) -> str:
    """What a person means who names a bundle of a device by its folder here, its id or its name.

    >>> named("0123456789ab")
    '0123456789ab'
    """
    folder = Path(bundle).expanduser()
    return bundles.read(folder).id if (folder / MANIFEST).is_file() else str(bundle)


def _find(store: Store, there: Inventory, wanted: str) -> Bundle:
    if wanted in there.bundles:
        return manifest(store, wanted)
    held = [manifest(store, name) for name in sorted(there.bundles)]
    called = [bundle for bundle in held if bundle.name == wanted]
    if len(called) == 1:
        return called[0]
    listed = ", ".join(f"{b.id} ({b.name} {b.format} {b.quantization})" for b in called or held) or "none"
    if called:
        raise UsageError(
            f"{store.device.address} has {len(called)} bundles called {wanted}", hint=f"say which: {listed}"
        )
    raise UsageError(f"{store.device.address} has no bundle {wanted!r}", hint=f"there are: {listed}")


def rollback(device: Device, root: str | None = None) -> tuple[Bundle, str | None]:
    """Back to the previous bundle, after it passed its self-test; that one, and the id of the other."""
    store = Store(device, root)
    if not _goes_back(store.inventory()):
        raise DeviceError(f"{device.address} has nothing to go back to", hint="edge devices shows what is there")
    with store.hold() as held:
        there = store.inventory()  # what another flash has made of it meanwhile
        if not _goes_back(there) or there.previous is None:
            raise DeviceError(f"{device.address} has nothing to go back to any more", hint="edge devices shows why")
        bundle = manifest(store, there.previous)
        install.prove(device, f"{store.root}/refs/{bundle.id}.start", bundle)
        held.rollback()
        if there.served is not None:
            service.restart(device, there.root or store.root)
    return bundle, there.current


def _goes_back(there: Inventory) -> bool:
    return there.previous != there.current and there.previous in there.bundles


def remove(
    device: Device, wanted: Sequence[str], root: str | None = None, *, current: bool = False
) -> tuple[tuple[str, ...], int]:
    """Take bundles away; their ids, and how many bytes that freed. Without `wanted`, all but the current one."""
    store = Store(device, root)
    there = store.inventory()
    gone = _going(store, there, wanted, current=current)
    if there.root is None:
        return (), 0
    with store.hold() as held:
        if (now := store.inventory()).bundles != there.bundles or now.current != there.current:
            there, gone = now, _going(store, now, wanted, current=current)
        if there.served is not None and there.current in gone:
            service.remove(device, there.root or store.root)
            held.served()
        return gone, held.remove(*gone)


def _going(store: Store, there: Inventory, wanted: Sequence[str], *, current: bool) -> tuple[str, ...]:
    """Ids of what `remove` is to take away."""
    if wanted:
        gone = tuple(b if b in there.bundles else _find(store, there, b).id for b in wanted)
    else:
        gone = tuple(b for b in there.bundles if current or b != there.current)
    if there.current in gone and not current:
        raise UsageError(f"{there.current} is what runs on {store.device.address}", hint="to remove it too: --current")
    return gone


def stop_serving(device: Device, root: str | None = None) -> bool:
    """Take the service away, and leave the bundles; whether there was one."""
    store = Store(device, root)
    there = store.inventory()
    if there.root is None or there.served is None:
        return False
    with store.hold() as held:
        gone = service.remove(device, there.root)
        held.served()
    return gone


def small_files(store: Store, bundle: Bundle) -> Path:
    """A folder of this machine with the bundle's manifest, tokenizer and template, each checked and kept by hash."""
    folder = cache.root() / "installed" / bundle.id
    folder.mkdir(parents=True, exist_ok=True)
    for entry in bundle.files:
        bundles.safe_path(entry.path)
        path = folder / entry.path
        if entry.path.endswith(_WEIGHTS) or entry.size_bytes > _SMALL_BYTES:
            continue
        if path.is_file() and path.stat().st_size == entry.size_bytes and sha256_of(path) == entry.sha256:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            got = Path(work) / "got"
            store.device.pull(f"{store.root}/bundles/{bundle.id}/{entry.path}", got)
            if sha256_of(got) != entry.sha256:
                raise InputError(
                    f"{store.device.address}: {entry.path} of {bundle.name} is damaged there",
                    hint="edge fsck DEVICE --repair --from BUNDLE puts it right",
                )
            os.replace(got, path)
    if not (folder / MANIFEST).is_file():
        bundles.write(bundle, folder)
    return folder
