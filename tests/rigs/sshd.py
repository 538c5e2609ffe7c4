"""A real sshd on loopback, as whoever runs the tests: a device for everything that needs no arm64.

python -m tests.rigs.sshd FOLDER      starts one, says how to reach it, and waits
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

INSTALL = "apt-get install openssh-server (nothing needs to be started)"


def missing() -> str | None:
    """Why this rig cannot run here; `None` when it can."""
    for program in ("ssh", "ssh-keygen"):
        if not shutil.which(program):
            return f"{program} is not installed: apt-get install openssh-client"
    if not _sshd():
        return f"sshd is not installed: {INSTALL}"
    return None


def _sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Sshd:
    """A server in `folder`, with keys of its own; `config` is a client's configuration that reaches it as `rig`."""

    def __init__(self, folder: Path, *, wrap: tuple[str, ...] = (), settings: tuple[str, ...] = ()) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("host", "id"):
            if not (folder / name).exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        self.port = free_port()
        (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
        public = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}\n")
        self.config = folder / "config"
        self.config.write_text(
            f"Host rig\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {folder}/id\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            f"  StrictHostKeyChecking yes\n",
            encoding="utf-8",
        )
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\n"
            f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n"
            f"PermitRootLogin yes\nMaxSessions 100\nMaxStartups 100\n" + "".join(f"{s}\n" for s in settings)
        )
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        self._process = subprocess.Popen(
            [*wrap, _sshd() or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL, stderr=(folder / "log").open("wb"), start_new_session=True,
        )  # fmt: skip
        self._wait()

    @property
    def address(self) -> str:
        return "ssh://rig"

    def _wait(self) -> None:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    rig = Sshd(Path(sys.argv[1]).absolute())
    print(f"export EDGE_SSH_CONFIG={rig.config}\nedge devices {rig.address}", flush=True)
    try:
        rig._process.wait()
    except KeyboardInterrupt:
        rig.stop()
