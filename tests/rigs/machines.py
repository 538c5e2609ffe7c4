"""Devices of every kind to flash, each for as long as a block runs: this machine, a Raspberry Pi, a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge.devices import device as protocol
from edge.devices.address import connect
from edge.devices.pack import llama
from edge.errors import EdgeError
from tests.rigs import raspberry
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device


@contextmanager
def laptop(folder: Path) -> Iterator[protocol.Device]:
    """A store of this machine."""
    device = connect(f"local:{folder / 'store'}")
    yield device
    device.close()


@contextmanager
def pi(folder: Path, cpu: str = "cortex-a76", release: str = "bookworm") -> Iterator[protocol.Device]:
    """arm64 Debian behind sshd, whose Python has no numpy."""
    rig = raspberry.Rig(folder, cpu, release)
    try:
        with environment({"EDGE_SSH_CONFIG": str(rig.config)}):
            device = connect(rig.address)
            device.tree, device.config = rig.tree, rig.config  # type: ignore[attr-defined]
            yield device
            device.close()
    finally:
        rig.stop()
        shutil.rmtree(rig.tree.root)  # hundreds of megabytes, which pytest would keep for three runs


@contextmanager
def phone(folder: Path, cpu: str = "cortex-a76") -> Iterator[protocol.Device]:
    """Bare arm64 behind adbd, reached by an adb of its own, or by that of the phone that is there already.

    Which adb a process talks to stands in its environment, so two of them would take each other's phones away.
    """
    if "ANDROID_ADB_SERVER_PORT" in os.environ:
        with _phone(folder, cpu) as device:
            yield device
        return
    with (
        Adb(folder / "home") as adb,
        environment({"ANDROID_ADB_SERVER_PORT": str(adb.port)}),
        _phone(folder, cpu) as device,
    ):
        yield device


@contextmanager
def _phone(folder: Path, cpu: str) -> Iterator[protocol.Device]:
    try:
        with Device(tree.Tree(folder / "tree", "arm64", cpu)) as rig:
            yield connect(f"adb:{rig.serial}")
    finally:
        shutil.rmtree(folder / "tree")


KINDS = {"laptop": laptop, "pi": pi, "android": phone}


def missing(kind: str) -> str | None:
    """Why the device of that kind cannot be had here; `None` when it can."""
    if kind == "laptop":
        return None
    reason = raspberry.missing() if kind == "pi" else tree.missing("arm64") or client.missing()
    if reason:
        return reason
    try:
        llama.key()
    except EdgeError as err:
        return str(err)
    return None


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """`values` in the environment of this process and what it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
