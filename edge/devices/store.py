"""The store on a device: files by what is in them, bundles made of them, and which one is current.

The device's half is `store.sh`, which says how it lies on the disk. Nothing is ever written over:
a flash adds files, and one rename of the link `current` makes them what runs.
"""

from __future__ import annotations

import io
import os
import secrets
import socket
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edge.devices.device import Device, Done, Ended, LinkLost, Stream
from edge.errors import DeviceError, EdgeError

_SYNC_S = 900.0  # a slow card takes minutes to write what it said it had
_HEARTBEAT_S = 5.0  # the device gives the lock up after 30 s without one
_CHUNK = 1 << 17

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """A file of a bundle or a pack: what is in it, where it lies, and whether it may be executed."""

    sha256: str
    path: str
    size_bytes: int
    source: Path  # on this machine
    executable: bool = False

    @property
    def line(self) -> str:
        return f"{self.sha256} {'x' if self.executable else '-'} {self.path}\n"


@dataclass(frozen=True)
class Inventory:
    """What a store holds. `root` is `None` where there is none yet; `bundles` have hashes of start scripts."""

    free_bytes: int
    root: str | None = None
    current: str | None = None
    previous: str | None = None
    blobs: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)
    packs: frozenset[str] = frozenset()
    key: str | None = None
    serials: Mapping[str, int] = field(default_factory=dict)
    served: str | None = None  # "HOST PORT" where a service listens

    @property
    def used_bytes(self) -> int:
        return sum(self.blobs.values()) + sum(self.parts.values())


def parse_inventory(text: str) -> Inventory:
    """What `store.sh inventory` wrote.

    >>> parse_inventory("free 10\\nroot /s\\ncurrent ab\\nfile 3 blobs/sha256-ff\\nbundle ab -\\n").blobs
    {'ff': 3}
    """
    one: dict[str, str] = {}
    blobs: dict[str, int] = {}
    parts: dict[str, int] = {}
    bundles: dict[str, str] = {}
    packs: set[str] = set()
    serials: dict[str, int] = {}
    for line in text.splitlines():
        what, _, rest = line.partition(" ")
        if what == "file":
            size, _, name = rest.partition(" ")
            hex_, dot, _ = name.rpartition("sha256-")[2].partition(".")
            (parts if dot else blobs)[hex_] = int(size)
        elif what == "bundle":
            name, _, started = rest.partition(" ")
            bundles[name] = started
        elif what == "pack":
            packs.add(rest)
        elif what == "serial":
            name, _, serial = rest.rpartition(" ")
            serials[name] = int(serial)
        else:
            one[what] = rest
    return Inventory(
        free_bytes=int(one.get("free") or 0) << 10, root=one.get("root"), current=one.get("current"),
        previous=one.get("previous"), blobs=blobs, parts=parts, bundles=bundles, packs=frozenset(packs),
        key=one.get("key"), serials=serials, served=one.get("served"),
    )  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Something wrong in a store: what (`damaged`, `missing`, `torn`, ...), which blob, bundle or pack, and whose."""

    what: str
    name: str
    of: str = ""


class Store:
    """The store of one device, at `root` there."""

    def __init__(self, device: Device, root: str | None = None) -> None:
        self.device = device
        self.root = root or device.root
        if self.root.startswith("-"):
            self.root = f"./{self.root}"

    def inventory(self) -> Inventory:
        """What is there, in one round trip."""
        text = self.call("inventory").text
        try:
            return parse_inventory(text)
        except ValueError as err:
            raise DeviceError(
                f"{self.device.address}: its store at {self.root} makes no sense: {err}",
                hint="somebody else wrote into it; remove the file that is wrong, or take another --root",
            ) from err

    def fsck(self) -> tuple[Fault, ...]:
        """Hash everything, and say what is wrong. Changes nothing."""
        lines = self.call("fsck", timeout_s=_SYNC_S).text.splitlines()
        return tuple(Fault(*line.split(" ", 2)) for line in dict.fromkeys(lines) if line)

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """The lock, for as long as the block runs: `DeviceError` when somebody else has it."""
        token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        stream = self.device.open(self._argv("hold", token))
        first = stream.readline(timeout_s=60.0)
        if first != b"held\n":
            self._raise("hold", stream.finish())
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(_HEARTBEAT_S):
                try:
                    stream.write(b".")
                except (DeviceError, OSError, ValueError):
                    return  # the next change finds the lock gone, and says so

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield Held(self, token)
        finally:
            stopped.set()
            beating.join(1.0)
            try:
                stream.finish(10.0)
            except (LinkLost, OSError, ValueError):
                stream.kill()

    def call(self, verb: str, *args: str, stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        """One verb of `store.sh`; what it could not do becomes an error."""
        done = self.device.run(self._argv(verb, *args), stdin, timeout_s)
        if done.code:
            self._raise(verb, done)
        return done

    def _argv(self, verb: str, *args: str) -> list[str]:
        return ["sh", "-c", script(), "store", verb, self.root, *args]

    def _raise(self, verb: str, done: Done) -> None:
        where = f"{self.device.address}: "
        if verb == "hold" and done.code == 75:
            raise DeviceError(
                f"{where}another flash is under way ({done.reason})",
                hint="wait for it; if it was cut off, its lock ends by itself within half a minute",
            )
        if done.code == 69:
            raise DeviceError(f"{where}its system has no flock", hint="install util-linux, busybox or toybox there")
        if done.code == 73:
            raise LinkLost(f"{where}{done.reason}", hint="run the same command again: it goes on where it was")
        if done.code == 74:
            raise DeviceError(
                f"{where}{done.reason}",
                hint="is its disk full, or read-only? what runs there is unchanged; see: edge devices --json",
            )
        raise DeviceError(f"{where}{verb}: {done.reason}", hint="what runs there is unchanged")


class Held:
    """A store whose lock we have. Every change can be cut off at any moment, and asked for again."""

    def __init__(self, store: Store, token: str) -> None:
        self._store, self._token = store, token

    def put(self, entry: Entry, offset: int, advance: Advance = lambda n: None) -> None:
        """Send one file from `offset` on, which is what the device has of it; checked there, then kept.

        What came before a cut is kept too. If the whole is not what it should be, it is sent once more.
        """
        device = self._store.device
        offset = offset if offset <= entry.size_bytes else 0
        argv = self._store._argv("put", self._token, entry.sha256, str(entry.size_bytes), str(offset))

        def rest() -> Iterator[bytes]:
            with entry.source.open("rb") as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    yield chunk
                    advance(len(chunk))

        done = _fed(device.open(argv), rest())
        if done.code == 75:
            raise LinkLost(
                f"{device.address}: it has {done.reason} bytes of {entry.path}, not {offset}", hint="run it again"
            )
        if done.code == 76 and offset:
            advance(-entry.size_bytes + offset)
            self.put(entry, 0, advance)
        elif done.code == 76:
            raise EdgeError(
                f"{device.address}: {entry.path} arrived damaged: its sha256 is not what was sent",
                hint="run it again; if it stays so, the device's memory or card is bad",
            )
        elif done.code:
            self._store._raise("put", done)

    def several(self, entries: Sequence[Entry], advance: Advance = lambda n: None) -> None:
        """Send many small files in one go."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for entry in entries:
                info = tarfile.TarInfo(f"sha256-{entry.sha256}")
                data = entry.source.read_bytes()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        stream = self._store.device.open(self._store._argv("several", self._token))
        done = _fed(stream, [packed.getvalue()])
        if done.code:
            self._store._raise("several", done)
        advance(sum(entry.size_bytes for entry in entries))

    def unpack(self, pack: str, rest: str, entries: Sequence[Entry]) -> None:
        """Make a pack of its large files and the tar `rest` of its small ones."""
        self._call("unpack", pack, rest, str(len(entries)), stdin=_lines(entries))

    def stage(self, bundle: str, start: str, packs: Sequence[str], entries: Sequence[Entry]) -> None:
        """Make a bundle of files that are there, and say how it is started; nothing runs it yet."""
        self._call("stage", bundle, start, str(len(entries)), *packs, stdin=_lines(entries))

    def switch(self, bundle: str) -> None:
        """From here on it is what runs; what ran before is `previous`."""
        self._call("switch", bundle)

    def rollback(self) -> str:
        """Back to the previous bundle, whose id is given; what ran becomes the previous one."""
        return self._call("rollback").text.strip()

    def remove(self, *bundles: str) -> int:
        """Bundles go, and what only they needed; how many bytes that freed. Without bundles: tidy up."""
        lines = self._call("remove", *bundles).text.splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("gone "))

    def mend(self, faults: Sequence[Fault]) -> None:
        """Take away what is damaged, put right what is there otherwise."""
        self._call("mend", stdin="".join(f"{f.what} {f.name} {f.of}\n" for f in faults).encode())

    def relink(self) -> None:
        """Every bundle's files are what is among the blobs now."""
        self._call("relink")

    def pin(self, key: str, name: str, serial: int | None) -> None:
        """Note whose bundles are taken here, and how new the last one called `name` was."""
        self._call("pin", key, name, "" if serial is None else str(serial))

    def served(self, *listens: str) -> None:
        """Note that a service serves what is current, at this address and port; or that there is none any more."""
        self._call("served", *listens)

    def _call(self, verb: str, *args: str, stdin: bytes = b"") -> Done:
        return self._store.call(verb, self._token, *args, stdin=stdin, timeout_s=_SYNC_S)


def _fed(stream: Stream, chunks: Iterable[bytes]) -> Done:
    """What a program left that was given `chunks`; one that did not want them all left why."""
    try:
        for chunk in chunks:
            stream.write(chunk)
        return stream.finish(_SYNC_S)
    except Ended as err:
        return err.done
    except BaseException:
        stream.kill()
        raise


def _lines(entries: Sequence[Entry]) -> bytes:
    return "".join(e.line for e in entries).encode()


@cache
def script() -> str:
    """`store.sh` without its comments: it goes over the link at every call."""
    text = Path(__file__).with_name("store.sh").read_text(encoding="utf-8")
    return "\n".join(line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
