"""Where a bundle is measured or profiled: here, or on a device that it was flashed to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge import bundle as bundles
from edge import profile
from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.runtimes import bench_worker, integrity

if TYPE_CHECKING:
    from edge.devices.device import Device
    from edge.devices.facts import Facts

_TIMEOUT_S = 3600


class Conditions(Protocol):
    """How a machine is at one moment."""

    @property
    def load_average(self) -> float | None: ...
    def record(self) -> dict[str, Any]: ...


class Place(Protocol):
    """A bundle where it can be measured."""

    name: str
    bundle: Bundle
    emulated: bool

    def conditions(self) -> Conditions: ...
    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One repetition in a fresh process (`edge.runtimes.bench_worker`)."""
        ...

    def profile(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """An answer with instruments on, in a fresh process (`edge.runtimes.profile_worker`)."""
        ...


class Here:
    """A bundle's folder on this machine."""

    emulated = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()
        self.name = str(self._folder)
        self.bundle: Bundle = bundles.read(self._folder)
        integrity.check(self._folder, self.bundle)

    def conditions(self) -> Conditions:
        return profile.conditions()

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        hint = "ask for shorter prompts and answers: --prompt-tokens, --depths, --new-tokens"
        return self._run(bench_worker.__name__, "measured", request, _timeout_s(request), hint)

    def profile(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        hint = "ask for fewer tokens: --prompt-tokens, --new-tokens"
        return self._run("edge.runtimes.profile_worker", "profiled", request, timeout_s, hint)

    def _run(
        self, worker: str, verb: str, request: Mapping[str, Any], timeout_s: float, shorter: str
    ) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, "-m", worker, json.dumps({**request, "bundle": str(self._folder)})],
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise EdgeError(f"{self.name} cannot be {verb}: no end after {err.timeout:g} s", hint=shorter) from None
        said = done.stderr.strip().splitlines()
        return _answer(self.name, done.stdout, said[-1] if said else f"it ended with code {done.returncode}", verb)


class There:
    """A bundle on a device; whatever is current there, or the one called `wanted`."""

    def __init__(self, device: Device, facts: Facts, wanted: str | None = None) -> None:
        from edge.devices import installed
        from edge.devices.store import Store

        self._device = device
        store = Store(device)
        self.bundle, _ = installed.current(store, wanted)
        self._start = f"{store.root}/refs/{self.bundle.id}.start"
        self.name = f"{device.address}: {self.bundle.name}"
        self.emulated = facts.emulated

    def conditions(self) -> Conditions:
        from edge.devices import facts

        return facts.state(self._device)

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        done = self._device.run(["sh", self._start, "bench", json.dumps(request)], timeout_s=_timeout_s(request))
        return _answer(self.name, done.text, done.reason, "measured")

    def profile(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        done = self._device.run(["sh", self._start, "profile", json.dumps(request)], timeout_s=timeout_s)
        return _answer(self.name, done.text, done.reason, "profiled")


def _timeout_s(request: Mapping[str, Any]) -> float:
    """How long one repetition may take; lasting work takes what was asked for besides."""
    return _TIMEOUT_S + float(request.get("seconds") or 0)


def _answer(name: str, text: str, reason: str, verb: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise EdgeError(f"{name} cannot be {verb}: {reason:.300}") from None
    if "error" in found:
        hint = found["hint"]
        if "the worker knows no" in found["error"]:  # of an edge from before there was this to ask for
            hint = "flash the bundle again: only what has changed is sent"
        raise EdgeError(f"{name} cannot be {verb}: {found['error']}", hint=hint)
    return found
