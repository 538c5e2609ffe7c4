"""A Raspberry Pi without one: arm64 Debian programs under qemu, reached through a real sshd.

    python -m tests.rigs.raspberry                                  a Raspberry Pi 5 with Debian bookworm
    python -m tests.rigs.raspberry --cpu cortex-a72 --release trixie   a Raspberry Pi 4 with Debian trixie

sshd is this machine's own, so that keys are exchanged at its speed; every command that it is asked for runs inside
the tree. What it cannot show: the boot, the card's wear, its speed and its heat.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edge import cache
from edge.devices.pack.debian import Apt, unpack
from tests.rigs import emulation, sshd
from tests.rigs.adbd import tree
from tests.rigs.sshd import Sshd

BOARDS = {"cortex-a76": "Raspberry Pi 5 Model B Rev 1.0", "cortex-a72": "Raspberry Pi 4 Model B Rev 1.4"}
# What Raspberry Pi OS was made from, and is: release -> its Python, which has no numpy, and what became other packages.
RELEASES = {"bookworm": ("3.11", "libssl3"), "trixie": ("3.13", "libssl3t64")}
# What a command line needs, with its libraries.
_PACKAGES = (
    "base-files dash coreutils util-linux tar gzip sed grep findutils libc-bin libc6 libselinux1 libpcre2-8-0 libacl1 "
    "libattr1 libgmp10 libsmartcols1 libtinfo6 zlib1g libexpat1 libcap2 libzstd1 libffi8 libgcc-s1 libstdc++6"
)


class Raspberry(tree.Tree):
    """A tree of arm64 Debian; commands run as user `pi`."""

    user = 1000

    def __init__(self, root: Path, cpu: str = "cortex-a76", release: str = "bookworm") -> None:
        self.release = release
        self.board = f"Revision\t: d04170\nSerial\t\t: 1000000000000000\nModel\t\t: {BOARDS[cpu]}\n"
        super().__init__(root, "arm64", cpu)

    def environment(self) -> Mapping[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": "/home/pi", "USER": "pi", "LANG": "C.UTF-8", "QEMU_CPU": self.cpu}

    def _build(self) -> None:
        shutil.copytree(_debian(self.release), self.root, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
        for name in ("proc", "sys", "dev/shm", "tmp", "run", "home/pi", "etc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for name in ("bin", "sbin", "lib"):  # which trixie's packages take for links
            if not (self.root / name).exists():
                (self.root / name).symlink_to(f"usr/{name}")
        for link, program in (("bin/sh", "dash"), ("usr/bin/python3", f"python{RELEASES[self.release][0]}")):
            if not (self.root / link).exists():
                (self.root / link).symlink_to(program)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n")
        (self.root / "etc/edge-emulated").write_text(f"{self.cpu}\n")
        self._identity()
        self.own(self.root / "home/pi")


class Rig:
    """The tree, and the sshd that leads into it; `config` and `address` as those of `tests.rigs.sshd`."""

    def __init__(self, folder: Path, cpu: str = "cortex-a76", release: str = "bookworm") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tree = Raspberry(folder / "tree", cpu, release)
        self.tree.start()
        enter = folder / "enter"
        inside = shlex.join(self.tree.command(["/bin/sh", "-c", 'cd && eval "$1"', "sh"]))
        clean = shlex.join(["env", "-i", *(f"{k}={v}" for k, v in self.tree.environment().items())])
        enter.write_text(f'#!/bin/sh\nexec {clean} {inside} "$SSH_ORIGINAL_COMMAND"\n')
        enter.chmod(0o755)
        self.sshd = Sshd(folder / "sshd", settings=(f"ForceCommand {enter}",))
        self.config, self.address = self.sshd.config, self.sshd.address

    def stop(self) -> None:
        self.sshd.stop()
        self.tree.stop()


def missing() -> str | None:
    """Why this rig cannot run here; `None` when it can."""
    if os.geteuid():
        return "a Raspberry Pi's user needs root here, to become that user"
    return sshd.missing() or emulation.missing() or tree.missing("arm64")


def _debian(release: str) -> Path:
    """The packages, unpacked once into the cache."""
    python, *others = RELEASES[release]
    python = f"python{python}"
    names = [*_PACKAGES.split(), *others, f"{python}-minimal", f"lib{python}-minimal", f"lib{python}-stdlib"]
    key = cache.key(release=release, packages=names)
    if (kept := cache.find("rigs", key)) is None:
        system = Apt(cache.root() / "apt-arm64", "arm64")
        system.update()
        if (apt := system.of(release)) is not system:
            apt.update()
        with cache.building("rigs", key) as work:
            for package in apt.fetch(apt.find(names)):
                unpack(package, work, lambda path: None if path.is_relative_to("usr/share") else path)
            work.chmod(0o755)
        kept = cache.root() / "rigs" / key
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where it lies (default: one that goes with it)")
    parser.add_argument("--cpu", choices=BOARDS, default="cortex-a76")
    parser.add_argument("--release", choices=RELEASES, default="bookworm", help="of Debian")
    asked = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    for ends in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores the first
        signal.signal(ends, signal.default_int_handler)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="edge-raspberry-"))
    rig = Rig(folder.absolute(), asked.cpu, asked.release)
    print(f"export EDGE_SSH_CONFIG={rig.config}\nedge devices {rig.address}\nCtrl-C ends it", flush=True)
    try:
        rig.sshd._process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        rig.stop()
        if asked.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
