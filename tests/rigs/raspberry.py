"""A Raspberry Pi without one: arm64 Debian programs under qemu, reached through a real sshd.

    python -m tests.rigs.raspberry FOLDER              a Raspberry Pi 5
    python -m tests.rigs.raspberry FOLDER cortex-a72   a Raspberry Pi 4

sshd is this machine's own, so that keys are exchanged at its speed; every command that it is asked for runs inside
the tree. What it cannot show: the boot, the card's wear, its speed and its heat.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from edge import cache
from edge.devices.pack.debian import Apt, unpack
from tests.rigs import emulation, sshd
from tests.rigs.adbd import tree
from tests.rigs.sshd import Sshd

BOARDS = {"cortex-a76": "Raspberry Pi 5 Model B Rev 1.0", "cortex-a72": "Raspberry Pi 4 Model B Rev 1.4"}
# What a command line needs, with its libraries; Python as Raspberry Pi OS has it, without numpy.
_PACKAGES = (
    "base-files dash coreutils util-linux tar gzip sed grep findutils libc-bin libc6 libselinux1 libpcre2-8-0 libacl1 "
    "libattr1 libgmp10 libsmartcols1 libtinfo6 zlib1g libexpat1 libssl3 "
    "python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
)


class Raspberry(tree.Tree):
    """A tree of arm64 Debian; commands run as user `pi`."""

    user = 1000

    def __init__(self, root: Path, cpu: str = "cortex-a76") -> None:
        self.board = f"Revision\t: d04170\nSerial\t\t: 1000000000000000\nModel\t\t: {BOARDS[cpu]}\n"
        super().__init__(root, "arm64", cpu)

    def environment(self) -> Mapping[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": "/home/pi", "USER": "pi", "LANG": "C.UTF-8", "QEMU_CPU": self.cpu}

    def _build(self) -> None:
        shutil.copytree(_debian(), self.root, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
        for name in ("proc", "sys", "dev/shm", "tmp", "run", "home/pi", "etc"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for link, program in (("bin/sh", "dash"), ("usr/bin/python3", "python3.11")):
            if not (self.root / link).exists():
                (self.root / link).symlink_to(program)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n")
        (self.root / "etc/edge-emulated").write_text(f"{self.cpu}\n")
        self._identity()
        self.own(self.root / "home/pi")


class Rig:
    """The tree, and the sshd that leads into it; `config` and `address` as those of `tests.rigs.sshd`."""

    def __init__(self, folder: Path, cpu: str = "cortex-a76") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tree = Raspberry(folder / "tree", cpu)
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


def _debian() -> Path:
    """The packages, unpacked once into the cache."""
    key = cache.key(packages=_PACKAGES)
    if (kept := cache.find("rigs", key)) is None:
        apt = Apt(cache.root() / "apt-arm64", "arm64")
        apt.update()
        with cache.building("rigs", key) as work:
            for package in apt.fetch(apt.find(_PACKAGES.split())):
                unpack(package, work, lambda path: None if path.is_relative_to("usr/share") else path)
            work.chmod(0o755)
        kept = cache.root() / "rigs" / key
    return kept


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    rig = Rig(Path(sys.argv[1]).absolute(), *sys.argv[2:3])
    print(f"export EDGE_SSH_CONFIG={rig.config}\nedge devices {rig.address}\nCtrl-C ends it", flush=True)
    try:
        rig.sshd._process.wait()
    except KeyboardInterrupt:
        rig.stop()
