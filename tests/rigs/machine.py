"""A whole arm64 machine: its own kernel, systemd, sshd and a card, under qemu. It can be rebooted, and its plug pulled.

    python -m tests.rigs.machine FOLDER             boots one, and says how to reach it
    python -m tests.rigs.machine FOLDER card.img    the same from a card that somebody wrote

Pulling the plug kills qemu: what the guest held in memory is gone, what it had given to its disk is not. A real disk
may also lose, and reorder, what was given to it after the last flush; for that the machine can log all that the disk
was told (`log=True`), and `tests.rigs.powercut` makes from it every disk that a cut could have left.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rigs import card, emulation
from tests.rigs.sshd import free_port

CPUS = ("cortex-a72", "cortex-a76")  # a Raspberry Pi 4 and a 5
_BOOT_S = 420  # on two cores that others use too


def missing() -> str | None:
    """Why this rig cannot run here; `None` when it can."""
    for program in ("qemu-system-aarch64", "ssh"):
        if shutil.which(program) is None:
            return f"a whole arm64 machine needs {program}; install it with: {emulation.INSTALL}"
    return card.missing()


class Machine:
    """One machine with its card in `folder`; `config` and `address` as those of `tests.rigs.sshd`."""

    address = "ssh://machine"

    def __init__(
        self, folder: Path, image: Path | None = None, *, cpu: str = "cortex-a76", log: bool = False,
        memory_mb: int = 1024,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._cpu, self._memory_mb = folder, cpu, memory_mb
        self._parts = card.card()
        self.image = image or folder / "card.img"
        if image is None and not self.image.exists():
            subprocess.run(["cp", "--sparse=always", str(self._parts.image), str(self.image)], check=True)
        self.log = folder / "writes.log" if log else None
        self.port = free_port()
        identity = folder / "id"
        shutil.copy(self._parts.identity, identity)
        identity.chmod(0o600)
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {self._parts.host_key}\n")
        self.config = folder / "config"
        self.config.write_text(
            f"Host machine\n  HostName 127.0.0.1\n  Port {self.port}\n  User pi\n  IdentityFile {identity}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            f"  StrictHostKeyChecking yes\n",
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Plug it in, and wait until its sshd answers."""
        disk = f"driver=raw,node-name=card,file.driver=file,file.filename={self.image}"
        blocks = ["-blockdev", disk]
        if self.log is not None:
            self.log.write_bytes(b"")
            logs = f"log.driver=file,log.filename={self.log},log-sector-size=512,log-super-update-interval=1"
            blocks += ["-blockdev", f"driver=blklogwrites,node-name=logged,file=card,{logs}"]
        node = "logged" if self.log is not None else "card"
        console = (self.folder / "console").open("ab")
        self._process = subprocess.Popen(
            ["qemu-system-aarch64", "-M", "virt", "-cpu", self._cpu, "-accel", "tcg,thread=multi", "-smp", "2",
             "-m", str(self._memory_mb), "-display", "none", "-serial", "stdio", "-monitor", "none",
             "-kernel", str(self._parts.kernel), "-initrd", str(self._parts.initrd),
             "-append", "console=ttyAMA0 quiet panic=-1 systemd.show_status=0",
             *blocks, "-device", f"virtio-blk-pci,drive={node},write-cache=on",
             "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:22",
             "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"],
            stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        console.close()
        self.wait()

    def wait(self) -> None:
        """Until sshd answers: after a start, or a reboot that the guest was asked for."""
        assert self._process is not None
        end = time.monotonic() + _BOOT_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                    s.settimeout(10)
                    if s.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            time.sleep(0.3)
        self.cut()
        raise RuntimeError(f"the machine did not come up: {(self.folder / 'console').read_bytes()[-3000:]!r}")

    def run(self, command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """A command line there, as user `pi`; what it writes is kept as text."""
        ssh = ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", "machine", command]
        return subprocess.run(ssh, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def forwarded(self, port: int) -> Iterator[str]:
        """Where a port of the machine's loopback is reached from here: `http://127.0.0.1:PORT`."""
        here = free_port()
        forward = [
            "ssh",
            "-F",
            str(self.config),
            "-N",
            "-o",
            "BatchMode=yes",
            "-L",
            f"{here}:127.0.0.1:{port}",
            "machine",
        ]
        process = subprocess.Popen(forward, stdin=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{here}"
        finally:
            process.kill()
            process.wait()

    def reboot(self) -> None:
        """As a person does it; returns when it is up again."""
        before = self.run("cat /proc/sys/kernel/random/boot_id").stdout
        self.run("sudo systemctl reboot")
        end = time.monotonic() + _BOOT_S
        while time.monotonic() < end:
            time.sleep(0.5)
            self.wait()
            done = self.run("cat /proc/sys/kernel/random/boot_id")
            if done.returncode == 0 and done.stdout not in ("", before):
                return
        raise RuntimeError("the machine did not reboot")

    def cut(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Pull the plug for good, and forget the card if it is ours."""
        self.cut()
        if self.image.parent == self.folder:
            self.image.unlink(missing_ok=True)
        if self.log is not None:
            self.log.unlink(missing_ok=True)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    rig = Machine(Path(sys.argv[1]).absolute(), *(Path(a).absolute() for a in sys.argv[2:3]))
    print("booting, which takes half a minute", flush=True)
    rig.start()
    print(f"export EDGE_SSH_CONFIG={rig.config}\nedge devices {rig.address}\nCtrl-C pulls the plug", flush=True)
    try:
        assert rig._process is not None
        rig._process.wait()
    except KeyboardInterrupt:
        rig.cut()
