"""Bundles with files large enough to be cut in the middle."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

from edge import bundle as bundles
from edge.devices import install
from edge.devices.store import Store
from tests.tiny_bundle import tiny_bundle

LARGE = (1 << 20) + 4321  # more than what travels together with others


def two_bundles(folder, large=LARGE):
    """`old` and `new`, which differ in one large file and share another."""
    for i, name in enumerate(("old", "new")):
        made = tiny_bundle(folder / name, name=name)
        (folder / name / "shared.bin").write_bytes(random.Random(0).randbytes(large))
        (folder / name / "own weights.bin").write_bytes(random.Random(1 + i).randbytes(large))
        made = dataclasses.replace(made, files=bundles.list_files(folder / name))
        (folder / name / "edge.json").unlink()
        made = dataclasses.replace(made, files=bundles.list_files(folder / name))
        bundles.write(made, folder / name)
    return folder / "old", folder / "new"


def whole(device, folder):
    """The bundle of `folder` is current, every byte of it is right, and it passes its self-test."""
    bundle = bundles.read(folder)
    there = Store(device).inventory()
    assert there.current == bundle.id
    current = Path(device.root) / "current"
    for entry in bundle.files:
        assert hashlib.sha256((current / entry.path).read_bytes()).hexdigest() == entry.sha256
    assert bundles.read(current) == bundle
    assert install.prove(device, f"{device.root}/refs/{bundle.id}.start", bundle)["tokens"] == [1]
