"""An image of a card with arm64 Debian on it, as a Raspberry Pi's: a partition table, a boot partition, a root one.

Made from Debian's packages without running any of them: apt resolves and checks, tar unpacks, `mkfs.ext4 -d` writes.
systemd, a real sshd, `sudo` for the user `pi`; no Python, no network beyond the host. Kept in the cache.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge import cache
from edge.devices.pack.debian import Apt
from tests.rigs.adbd import tree

_PACKAGES = (
    "base-files base-passwd bash dash coreutils util-linux tar gzip sed grep findutils procps login passwd hostname "
    "libc-bin systemd systemd-sysv udev dbus sudo openssh-server libpam-systemd iproute2"
)
_KERNEL = "linux-image-cloud-arm64"
# Needed by scripts of packages only, none of which are run.
_LEFT_OUT = re.compile(r"(lib)?perl.*|debconf|adduser|ucf|dpkg|libfile-find-rule-perl|libgdbm.*|libdb5.3|tar-doc")
# To find the card, what is on it, and the network.
_MODULES = "crc32c_generic libcrc32c virtio_pci virtio_mmio virtio_blk ext4 virtio_net virtio_rng"
MIB = 1 << 20
_BOOT_MIB, ROOT_START_MIB = 8, 9
_FREE_MIB = 24  # as little as Raspberry Pi OS leaves

_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys; /bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$m; done
n=0; while [ ! -b /dev/vda2 ] && [ $n -lt 300 ]; do /bin/busybox sleep 0.1; n=$((n+1)); done
/bin/busybox mount -t ext4 -o ro /dev/vda2 /root || exec /bin/busybox sh
/bin/busybox mount --move /dev /root/dev; /bin/busybox umount /sys /proc
exec /bin/busybox switch_root /root /sbin/init
"""
_FILES = {
    "etc/fstab": "/dev/vda2 / ext4 defaults,noatime 0 1\n",
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1 localhost raspberrypi\n",
    "etc/machine-id": "00112233445566778899aabbccddeeff\n",
    "etc/sudoers.d/pi": "pi ALL=(ALL) NOPASSWD: ALL\n",
    "etc/edge-emulated": "a whole machine\n",
    "etc/tmpfiles.d/pi.conf": "Z /home/pi - pi pi\n",
    "etc/systemd/network/wired.network": (
        "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    "etc/pam.d/common-auth": "auth sufficient pam_unix.so\n",
    "etc/pam.d/common-account": "account sufficient pam_unix.so\n",
    "etc/pam.d/common-password": "password sufficient pam_unix.so\n",
    "etc/pam.d/common-session": "session required pam_unix.so\nsession optional pam_systemd.so\n",
    "etc/pam.d/common-session-noninteractive": "session required pam_unix.so\n",
    "etc/ssh/sshd_config": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nUsePAM yes\nStrictModes no\n"
        "Subsystem sftp internal-sftp\nMaxSessions 100\nMaxStartups 100\nUseDNS no\n"
    ),
}
_USERS = (
    "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin", "messagebus:x:102:102::/nonexistent:/usr/sbin/nologin",
    "systemd-network:x:998:998::/:/usr/sbin/nologin", "pi:x:1000:1000::/home/pi:/bin/bash",
)  # fmt: skip
_GROUPS = ("messagebus:x:102:", "systemd-network:x:998:", "pi:x:1000:", "systemd-journal:x:999:", "render:x:997:",
           "input:x:996:", "kvm:x:995:", "sgx:x:994:")  # fmt: skip
_WANTED = {"ssh.service": "lib/systemd/system", "systemd-networkd.service": "lib/systemd/system"}
_MASKED = (
    "getty.target", "systemd-timesyncd.service", "systemd-firstboot.service", "e2scrub_reap.service", "apt-daily.timer",
    "dpkg-db-backup.timer", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "fstrim.timer",
    "systemd-networkd-wait-online.service", "systemd-hwdb-update.service", "ldconfig.service",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """The image, what starts it, and the keys of its sshd and of its user."""

    image: Path
    kernel: Path
    initrd: Path
    identity: Path
    host_key: str


def missing() -> str | None:
    """Why it cannot be made here; `None` when it can."""
    for program in ("apt-get", "dpkg-deb", "mkfs.ext4", "ssh-keygen", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed here"
    return None


def card() -> Card:
    """The image, from the cache or made now: a minute, and 70 MB of packages, once."""
    key = cache.key(code=Path(__file__).read_text(encoding="utf-8"))
    if (kept := cache.find("rigs", key)) is None:
        with cache.building("rigs", key) as work:
            _make(work)
        kept = cache.root() / "rigs" / key
    public = " ".join((kept / "host.pub").read_text().split()[:2])
    return Card(kept / "card.img", kept / "vmlinuz", kept / "initrd", kept / "id", public)


def _make(work: Path) -> None:
    apt = Apt(cache.root() / "apt-arm64", "arm64")
    apt.update()
    root = work / "root"
    for name in ("usr/bin", "usr/sbin", "usr/lib", "home/pi/.ssh", "proc", "sys", "dev", "run", "root"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    wanted = [p for p in apt.closure(_PACKAGES.split()) if not _LEFT_OUT.fullmatch(p.name)]
    for package in apt.fetch(wanted):
        _unpack(package, root)
    kernel = next(p for p in apt.closure([_KERNEL]) if re.fullmatch(r"linux-image-\d.*", p.name))
    _unpack(apt.fetch([kernel])[0], work / "kernel")
    shutil.copy(next((work / "kernel/boot").glob("vmlinuz-*")), work / "vmlinuz")
    _initrd(next((work / "kernel/lib/modules").iterdir()), work / "initrd")
    _configure(root, work)
    _image(root, work / "card.img")
    for name in ("root", "kernel"):
        shutil.rmtree(work / name)


def _unpack(package: Path, root: Path) -> None:
    root.mkdir(exist_ok=True)
    left_out = [f"--exclude=./usr/share/{name}" for name in ("doc", "man", "locale", "info", "i18n", "zsh", "perl*")]
    data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    options = ["--keep-directory-symlink", "--no-same-owner", "-p", *left_out]
    subprocess.run(["tar", "-x", "-C", str(root), *options], stdin=data.stdout, check=True)
    if data.wait():
        raise RuntimeError(f"{package} cannot be unpacked")


def _configure(root: Path, work: Path) -> None:
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(work / name)], check=True)
    base = root / "usr/share/base-passwd"
    users = (base / "passwd.master").read_text().replace("root:*:", "root:x:")
    files = {
        **_FILES,
        "etc/passwd": users + "".join(f"{line}\n" for line in _USERS),
        "etc/group": (base / "group.master").read_text() + "".join(f"{line}\n" for line in _GROUPS),
        "etc/shadow": "root:*:19000:0:99999:7:::\npi:*:19000:0:99999:7:::\n",
        "etc/ssh/ssh_host_ed25519_key": (work / "host").read_text(),
        "home/pi/.ssh/authorized_keys": (work / "id.pub").read_text(),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("etc/shadow", "etc/ssh/ssh_host_ed25519_key", "etc/sudoers.d/pi"):
        (root / name).chmod(0o400)
    units = root / "etc/systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for name, place in _WANTED.items():
        (units / "multi-user.target.wants" / name).symlink_to(f"/{place}/{name}")
    for name in _MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")


def _image(root: Path, image: Path) -> None:
    """Partition 1 is left empty: qemu's kernel comes from outside."""
    used = sum(p.lstat().st_size + 4096 for p in root.rglob("*") if not p.is_symlink())
    size_mib = used * 23 // 20 // MIB + 40 + _FREE_MIB
    with image.open("wb") as file:
        file.truncate((ROOT_START_MIB + size_mib) * MIB)
        table = _entry(0x0C, MIB // 512, _BOOT_MIB * MIB // 512) + _entry(
            0x83, ROOT_START_MIB * MIB // 512, size_mib * MIB // 512
        )
        file.seek(440)
        file.write(b"edge\0\0" + table.ljust(64, b"\0") + b"\x55\xaa")
    where = f"offset={ROOT_START_MIB * MIB}"
    mkfs = [
        "mkfs.ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-L",
        "rootfs",
        "-E",
        where,
        "-d",
        str(root),
        str(image),
        f"{size_mib}M",
    ]
    mine = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]  # so that everything in it is root's
    subprocess.run([*mine, *mkfs], check=True)


def _entry(kind: int, start: int, sectors: int) -> bytes:
    """One line of a partition table."""
    return struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, sectors)


def _initrd(modules: Path, out: Path) -> None:
    """busybox, the modules in the order in which they can be loaded, and the script."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "sys", "root", "modules")]
    entries.append(("init", stat.S_IFREG | 0o755, _INIT.encode()))
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, tree.programs("arm64", out.parent)[1].read_bytes()))
    order = []
    for name, data in _closure(modules, _MODULES.split()):
        order.append(f"{name}.ko")
        entries.append((f"modules/{name}.ko", stat.S_IFREG | 0o644, data))
    entries.append(("modules/order", stat.S_IFREG | 0o644, "\n".join(order).encode()))
    out.write_bytes(b"".join(_cpio(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")]))


def _closure(folder: Path, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """Modules and what they need, in order; what is built into the kernel is no file."""
    files = {re.sub(r"\.ko(\.xz)?$", "", p.name).replace("-", "_"): p for p in folder.rglob("*.ko*")}
    done: set[str] = set()

    def walk(name: str) -> Iterator[tuple[str, bytes]]:
        name = name.replace("-", "_")
        if name in done or name not in files:
            return
        done.add(name)
        data = files[name].read_bytes()
        data = lzma.decompress(data) if files[name].suffix == ".xz" else data
        for found in re.findall(rb"\0(?:depends=|softdep=pre: )([^\0]*)", data):
            for other in re.split(r"[, ]", found.decode()):
                yield from walk(other)
        yield name, data

    for name in wanted:
        yield from walk(name)


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    """One file, as the kernel reads it (`newc`)."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
