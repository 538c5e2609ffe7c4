"""A bundle, its runtime and the service into the root file system of an image: a card written from it answers at once.

1. The image's root partition is copied out of it; the image itself is never written to.
2. The store is made on this machine, by the same script that makes it on devices.
3. It goes into the copy, which grows when it has to, and is read back and compared.
4. Head, root and tail make a new image, which takes its name when it is whole.

What cannot be done here is to run it: the bundle tests itself at its first start, and does not serve if that fails.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.devices import install, runner, service, signature
from edge.devices.card import ext4, partitions
from edge.devices.card.ext4 import Ext4
from edge.devices.card.partitions import Partition
from edge.devices.install import Wishes
from edge.devices.kinds.local import Local
from edge.devices.runner import Runner
from edge.devices.service import Service
from edge.devices.signature import Signed
from edge.devices.store import Inventory, Store
from edge.errors import InputError, MissingError
from edge.progress import Progress, Silent
from edge.runtimes import integrity

ROOT = "/var/lib/edge"  # of the store: homes are made, and renamed, when a card is started first
_OWNER = 1000  # the first person of a Raspberry Pi OS, whatever they will be called
_ALIGNED = 4 << 20
_CHUNK = 1 << 20
_EMPTY = Inventory(free_bytes=0)  # an image without a store has seen no bundle yet


@dataclass(frozen=True)
class Written:
    """What was put where; bytes."""

    image: Path
    bundle: Bundle
    system: str
    how: str
    added_bytes: int
    grown_bytes: int
    service: Service

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "image": str(self.image), "store": ROOT, "bundle": {"name": self.bundle.name, "id": self.bundle.id},
            "system": self.system, "runs_with": self.how, "added_bytes": self.added_bytes,
            "grown_bytes": self.grown_bytes, "listens": f"{self.service.host}:{self.service.port}", "selftest": None,
        }  # fmt: skip


def write(
    folder: Path, image: Path, output: Path, *, level: str = "armv8.0", wishes: Wishes | None = None,
    progress: Progress | None = None,
) -> Written:  # fmt: skip
    """`image` with the bundle in `folder` put into it, as `output`, which may be `image` itself.

    Of `wishes`, the service and what is asked of the signature count. Raises `InputError` for a bundle that is not
    signed as was asked, for what is no image of an arm64 Debian, and for a root partition that is too small and cannot
    grow; `MissingError` without e2fsprogs.
    """
    wishes, progress = wishes or Wishes(), progress or Silent()
    wanted = wishes.service or Service()
    if ext4.NEED.missing:
        raise MissingError(
            f"images of cards are written by {', '.join(ext4.NEED.missing)}, which is not here",
            hint=ext4.NEED.install,
        )
    progress.start("checking the bundle")
    bundle = bundles.read(folder)
    integrity.check(folder, bundle)
    signed = signature.check(folder, bundle)
    signature.admit(signed, bundle, _EMPTY, str(image), wishes)
    progress.start("looking at the image")
    root, system = _root(image)
    how = runner.packed(bundle, level, progress, serves=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".edge-card-", dir=output.parent) as name:
        work = Path(name)
        tree = work / "tree"
        progress.start("putting the bundle together")
        _store(tree / ROOT.lstrip("/"), folder, bundle, how, wanted, signed, wishes)
        progress.start("copying the root file system")
        files = Ext4(work / "root.ext4")
        with image.open("rb") as source, files.path.open("wb") as target:
            _copy(source, root.start, root.size, target, 0)
        files.mend()
        if files.is_folder(ROOT):
            raise InputError(f"{image} has a store of edge already", hint="take the image that it was made from")
        owners = _around(tree, files, wanted)
        needed = ext4.size_of(tree)
        grown = _grow(files, root, image, needed)
        progress.start("writing into it")
        files.add(tree, owners)
        files.whole()
        progress.start("reading it back")
        files.compare(tree)
        progress.start("making the new image")
        _compose(image, root, files.path, work / "new.img")
        os.replace(work / "new.img", output)
    return Written(output, bundle, system, how.how, needed, grown, wanted)


def _root(image: Path) -> tuple[Partition, str]:
    """Which partition the system is on, and what it calls itself."""
    if not image.is_file():
        raise InputError(f"{image} is no file", hint="give an image as it is downloaded, not the card itself")
    for partition in reversed(partitions.read(image)):
        where = f"{image}?offset={partition.start}"
        release = ext4.read(where, "/usr/lib/os-release")
        if release is None:
            continue
        shell = ext4.read(where, "/usr/bin/dash") or ext4.read(where, "/bin/dash") or b""
        name = re.search(r'^PRETTY_NAME="?([^"\n]*)', release.decode(errors="replace"), re.MULTILINE)
        system = name[1] if name else "Linux"
        if shell[:5] != b"\x7fELF\x02" or shell[18:20] != b"\xb7\0":  # 64 bit; EM_AARCH64
            raise InputError(f"{image} holds {system}, but not for 64-bit Arm", hint="take its arm64 image")
        return partition, system
    raise InputError(
        f"{image} has no partition with a Linux system on ext4", hint="Raspberry Pi OS and Debian for arm64 do"
    )


def _store(
    root: Path, folder: Path, bundle: Bundle, how: Runner, wanted: Service, signed: Signed | None, wishes: Wishes
) -> None:
    """A store at `root` of this machine, with the bundle current in it and its self-test still to come."""
    root.mkdir(parents=True)
    entries = install.contents(folder, bundle)
    files = {e.sha256: e for e in (*entries, *(e for pack in how.packs for e in (pack.rest, *pack.large)))}
    with Store(Local(str(root))).hold() as held:
        for entry in files.values():
            held.put(entry, 0)
        for pack in how.packs:
            held.unpack(pack.id, pack.rest.sha256, pack.large)
        held.stage(bundle.id, how.start, [pack.id for pack in how.packs], entries)
        held.switch(bundle.id)
        signature.note(held, signed, _EMPTY, bundle, wishes)
        held.served(wanted.host, str(wanted.port))
    for name in ("lock", "lock.owner"):
        (root / name).unlink(missing_ok=True)
    (root / "refs" / f"{bundle.id}.untested").touch()


def _around(tree: Path, files: Ext4, wanted: Service) -> list[tuple[str, int]]:
    """The unit, enabled; the command for whoever logs in; and the store where a flash of the first person looks for it.

    What of all this belongs to that person, or to root where an image has none yet: a service of somebody who is not
    there would not start, and root's may do nothing but read.
    """
    home = re.search(rf"^[^:]+:[^:]*:{_OWNER}:[^\n]*:(/[^:\n]+):[^:\n]*$", _text(files, "/etc/passwd"), re.MULTILINE)
    units = tree / service.PLACE.lstrip("/")
    (units / "multi-user.target.wants").mkdir(parents=True)
    (units / service.UNIT).write_text(service.unit(wanted, ROOT, _OWNER if home else 0), encoding="utf-8")
    (units / "multi-user.target.wants" / service.UNIT).symlink_to(f"../{service.UNIT}")
    (tree / "usr/local/bin").mkdir(parents=True)
    for name in ("edge-chat", "edge-act"):
        (tree / "usr/local/bin" / name).symlink_to(f"{ROOT}/bin/{name}")
    if home is None:
        return []
    (tree / home[1].lstrip("/") / ".local/share").mkdir(parents=True)
    (tree / home[1].lstrip("/") / ".local/share/edge").symlink_to(ROOT)
    return [(ROOT, _OWNER), (home[1], _OWNER)]


def _text(files: Ext4, name: str) -> str:
    return (files.read(name) or b"").decode("utf-8", errors="replace")


def _grow(files: Ext4, root: Partition, image: Path, needed: int) -> int:
    """By how much the file system had to grow, and did."""
    lacking = needed - files.free_bytes
    if lacking <= 0:
        return 0
    more = -(-lacking * 105 // 100 // _ALIGNED) * _ALIGNED
    last = max(partition.end for partition in partitions.read(image)) == root.end
    if not last or root.table != "mbr":
        raise InputError(
            f"{image}: {lacking / 1e6:.0f} MB are missing on its root partition, which cannot be grown here "
            f"({'it is not the last one' if not last else 'its table is a GPT'})",
            hint=f"grow it first: truncate -s +{more >> 20}M {image}; then growpart and resize2fs",
        )
    files.grow(root.size + more)
    return more


def _compose(image: Path, root: Partition, file_system: Path, target: Path) -> None:
    """Head and tail of `image` with `file_system` between them."""
    size = file_system.stat().st_size
    with image.open("rb") as old, file_system.open("rb") as middle, target.open("w+b") as new:
        head = old.read(512)
        _copy(old, 0, root.start, new, 0)
        if size != root.size:
            new.seek(0)
            new.write(partitions.grown(head, root, size))
        _copy(middle, 0, size, new, root.start)
        if size == root.size:
            _copy(old, root.end, image.stat().st_size - root.end, new, root.end)
        new.flush()
        os.fsync(new.fileno())
    shutil.copymode(image, target)


def _copy(source: BinaryIO, start: int, size: int, target: BinaryIO, at: int) -> None:
    """`size` bytes; what is empty stays a hole of the target, which is a new file."""
    source.seek(start)
    end, empty = at + size, bytes(_CHUNK)
    while at < end:
        data = source.read(min(_CHUNK, end - at))
        if not data:
            raise InputError("the image ended while it was read")
        if data != empty[: len(data)]:
            target.seek(at)
            target.write(data)
        at += len(data)
    target.truncate(max(end, os.fstat(target.fileno()).st_size))
