"""A bundle onto a device: the order of the steps, each of which may be cut off at any moment.

1. Look at both; refuse what cannot work before anything is copied.
2. Send what the device lacks; each file is checked there, and kept from then on.
3. Make the bundle beside the one that runs, and let it prove itself there: load, say its first tokens.
4. Switch, which is one rename. Until then the old bundle runs, and after it the old one is `previous`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.bundle import MANIFEST, Bundle, sha256_of
from edge.devices import facts as device_facts
from edge.devices import preflight, runner, service, signature
from edge.devices.device import Device, Done, LinkLost
from edge.devices.facts import Facts
from edge.devices.runner import Pack, Runner
from edge.devices.service import Service
from edge.devices.store import Entry, Held, Inventory, Store
from edge.errors import DeviceError, EdgeError, InputError
from edge.progress import Progress, Silent
from edge.runtimes import integrity

_SMALL_BYTES = 1 << 20  # files up to here travel together
_SELFTEST_S = 900.0
_MOST_FILES = 10_000
_TRIES = 5  # that each got further than the one before
_PAUSE_S = 2.0


@dataclass(frozen=True)
class Flashed:
    """What a flash did. `sent_bytes` are those of files; `selftest` is what the device said when it proved itself."""

    device: str
    bundle: Bundle
    changed: bool
    previous: str | None
    how: str
    sent_bytes: int
    total_bytes: int
    seconds: float
    selftest: dict[str, Any] | None
    facts: Facts
    root: str  # of the store there
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "device": self.device, "store": self.root, "bundle": {"name": self.bundle.name, "id": self.bundle.id},
            "changed": self.changed, "previous": self.previous, "runs_with": self.how, "sent_bytes": self.sent_bytes,
            "total_bytes": self.total_bytes, "seconds": round(self.seconds, 3), "selftest": self.selftest,
            "facts": self.facts.record(), "notes": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """What may be asked of a flash beside the bundle and the device."""

    root: str | None = None
    python: str = ""
    context_length: int | None = None
    require_signature: bool = False
    key: str | None = None  # the only one to take; pins it
    allow_downgrade: bool = False
    force: bool = False  # although preflight speaks against it
    runner: str | None = None  # started by this program, whatever the device has
    service: Service | None = None  # serve what is current, from now on and whenever the device starts


def flash(folder: Path, device: Device, wishes: Wishes | None = None, progress: Progress | None = None) -> Flashed:
    """Install `folder` and make it what runs. Nothing of what runs now changes until the last step.

    A link that breaks is taken up again where it was, as long as each try gets further. Raises
    `InputError` for a bundle that is damaged or hostile, `DeviceError` when the device cannot be
    reached or is unfit, `LinkLost` when it stays away.
    """
    wishes, progress = wishes or Wishes(), progress or Silent()
    began = time.monotonic()
    progress.start("checking the bundle")
    bundle = bundles.read(folder)
    integrity.check(folder, bundle)
    entries = contents(folder, bundle)
    signed = signature.check(folder, bundle)
    sent = 0
    for tries in range(1, _TRIES + 1):
        one = _Flash(device, wishes, progress, bundle, entries, signed)
        try:
            done = one.run()
            return Flashed(
                device.address, bundle, done.changed, done.previous, done.how, sent + one.sent, one.total,
                time.monotonic() - began, done.selftest, one.facts, one.root, one.notes,
            )  # fmt: skip
        except LinkLost as err:
            sent += one.sent
            # One more try for a device that answered at all; further ones while they get further.
            if not one.reached or (one.sent <= 0 and tries > 1) or tries == _TRIES:
                raise
            progress.say(f"{err.message}; going on where it was")
            time.sleep(_PAUSE_S)
    raise AssertionError  # the last try returned or raised


def contents(folder: Path, bundle: Bundle) -> tuple[Entry, ...]:
    """Every file of the bundle, the manifest and the signature included.

    Raises `InputError` for paths that leave the folder, by links in the middle too.
    """
    if len(bundle.files) > _MOST_FILES:
        raise InputError(f"{folder} lists {len(bundle.files)} files; no bundle has more than {_MOST_FILES}")
    top = folder.resolve()
    entries = []
    own = [name for name in (MANIFEST, signature.FILE) if (folder / name).exists()]
    if clash := {f.path for f in bundle.files} & {MANIFEST, signature.FILE}:
        raise InputError(f"{folder} lists {clash.pop()} among its files, which it cannot")
    found = [(f.path, f.sha256) for f in bundle.files]
    for name, digest in [*found, *((name, sha256_of(folder / name)) for name in own)]:
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(top) or not path.is_file():
            raise InputError(f"{path} is no file of the bundle: it leads elsewhere", hint="export it again")
        entries.append(Entry(digest, name, path.stat().st_size, path))
    return tuple(entries)


@dataclass(frozen=True)
class _Done:
    changed: bool
    previous: str | None
    how: str
    selftest: dict[str, Any] | None


class _Flash:
    """One try."""

    def __init__(
        self, device: Device, wishes: Wishes, progress: Progress, bundle: Bundle, entries: Sequence[Entry],
        signed: signature.Signed | None,
    ) -> None:  # fmt: skip
        self._device, self._wishes, self._progress = device, wishes, progress
        self._bundle, self._entries, self._signed = bundle, entries, signed
        self._store = Store(device, wishes.root)
        self.root = self._store.root
        self.sent = self.total = 0
        self.reached = False
        self.notes: tuple[str, ...] = ()
        self.facts: Facts

    def run(self) -> _Done:
        progress, bundle = self._progress, self._bundle
        progress.start(f"looking at {self._device.address}")
        self.facts = device_facts.ask(self._device, self._wishes.python or self._device.python)
        self.reached = True
        there = self._store.inventory()
        signature.admit(self._signed, bundle, there, self._device.address, self._wishes)
        wanted = self._wishes.service
        serves = wanted is not None or there.served is not None
        how = runner.choose(bundle, self.facts, progress, serves=serves, wanted=self._wishes.runner)
        packs = [p for p in how.packs if p.id not in there.packs]
        files = {e.sha256: e for e in self._entries}
        for pack in packs:
            files.update({e.sha256: e for e in (pack.rest, *pack.large)})
        lacking = [e for e in files.values() if there.blobs.get(e.sha256) != e.size_bytes]
        self.total = sum(e.size_bytes for e in files.values())
        todo = sum(e.size_bytes - min(e.size_bytes, there.parts.get(e.sha256, 0)) for e in lacking)
        unpacked = sum(p.rest.size_bytes for p in packs)
        verdict = preflight.check(
            bundle, self.facts, send_bytes=todo + unpacked, free_bytes=there.free_bytes,
            context_length=self._wishes.context_length,
        )  # fmt: skip
        self.notes = verdict.notes
        if self._signed is not None and (pinned := signature.newly_pinned(self._signed, there, self._wishes)):
            self.notes += (f"from now on it takes bundles of the key {pinned} only, and none that are older",)
        if verdict.against and not self._wishes.force:
            raise DeviceError(
                f"{self._device.address} is unfit for {bundle.name}:\n  - " + "\n  - ".join(verdict.against),
                hint="nothing was copied, and what runs there is unchanged",
            )
        started = runner_hash(how)
        if there.current == bundle.id and there.bundles.get(bundle.id) == started and not lacking and not packs:
            if wanted is not None or not signature.noted(self._signed, there, bundle, self._wishes):
                with self._store.hold() as held:
                    self._same(there)
                    signature.note(held, self._signed, there, bundle, self._wishes)
                    if wanted is not None:
                        self._serve(held, wanted)
            return _Done(False, there.previous, how.how, None)
        with self._store.hold() as held:
            self._same(there)
            self._send(held, there, lacking, todo)
            for pack in packs:
                progress.start(f"unpacking {how.how}")
                held.unpack(pack.id, pack.rest.sha256, pack.large)
            progress.start("putting the bundle together there")
            held.stage(bundle.id, how.start, [p.id for p in how.packs], self._entries)
            progress.start("self-test on the device")
            said = self._prove(held, there, how)
            progress.start("switching")
            held.switch(bundle.id)
            signature.note(held, self._signed, there, bundle, self._wishes)
            progress.start("tidying up")
            before = there.current if there.current != bundle.id else there.previous
            held.remove(*(set(there.bundles) - {bundle.id, before}))
            if wanted is not None:
                self._serve(held, wanted)
            elif there.served is not None:
                progress.start("starting the service anew")
                self.notes += service.follow(self._device, there.root or self._store.root)
        return _Done(True, before, how.how, said)

    def _same(self, there: Inventory) -> None:
        """`LinkLost`, so that all is looked at anew, when somebody else had the lock since `there` was seen."""
        now = self._store.inventory()
        if replace(now, free_bytes=there.free_bytes, root=there.root, parts=there.parts) != there:
            raise LinkLost(
                f"{self._device.address}: its store was changed by somebody else just now", hint="run it again"
            )

    def _serve(self, held: Held, wanted: Service) -> None:
        """What is current is served from here on. The bundle is there and runs, whatever comes of this."""
        self._progress.start("starting the service")
        root = self._store.inventory().root or self._store.root
        held.served(wanted.host, str(wanted.port))
        service.install(self._device, root, self.facts.user_id or 0, wanted)

    def _send(self, held: Held, there: Inventory, lacking: Sequence[Entry], todo: int) -> None:
        self._progress.start(f"sending to {self._device.address}", max(1, todo), "bytes")

        def advance(n: int) -> None:
            self.sent += n
            self._progress.advance(self.sent)

        small = [e for e in lacking if e.size_bytes < _SMALL_BYTES]
        if small:
            held.several(small, advance)
        for entry in lacking:
            if entry.size_bytes >= _SMALL_BYTES:
                held.put(entry, there.parts.get(entry.sha256, 0), advance)

    def _prove(self, held: Held, there: Inventory, how: Runner) -> dict[str, Any]:
        """What the self-test said; when it fails, the new bundle goes, and the old one was never touched."""
        name = self._bundle.id
        start = f"{self._store.root}/refs/{name}.start.new"
        try:
            return prove(self._device, start, self._bundle)
        except LinkLost:
            raise
        except EdgeError:
            if name not in there.bundles:
                held.remove(name)
            raise


def prove(device: Device, start: str, bundle: Bundle) -> dict[str, Any]:
    """Run the self-test of a bundle that is there. `DeviceError` says why it must not run there."""
    done = device.run(["sh", start, "selftest"], timeout_s=_SELFTEST_S)
    said = last_json(done)
    if done.code == 0 and "tokens" in said:
        return said
    unchanged = "what ran there before still does"
    where = f"{device.address}: {bundle.name} fails its self-test there: "
    match done.code:
        case 132:
            raise DeviceError(f"{where}its processor lacks an instruction that the runtime uses", hint=unchanged)
        case 137:
            raise DeviceError(f"{where}it was killed, most likely for want of memory", hint=unchanged)
        case code if code > 128:
            raise DeviceError(f"{where}signal {code - 128} ended it", hint=unchanged)
    reason = said.get("error") or done.reason
    raise DeviceError(f"{where}{reason:.600}", hint=unchanged)


def last_json(done: Done) -> dict[str, Any]:
    """The last line that a worker wrote, which is its answer; empty when it is none."""
    for line in reversed(done.text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    return {}


def runner_hash(how: Runner) -> str:
    """How the inventory names a start script."""
    import hashlib

    return hashlib.sha256(how.start.encode()).hexdigest()


__all__ = ["Flashed", "Pack", "Wishes", "contents", "flash", "prove"]
