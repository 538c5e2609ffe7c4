"""A machine over OpenSSH: `ssh://[user@]host[:port][/store]`. The user's config, agent and known hosts hold.

One connection serves everything (ControlMaster). Nothing is asked: a key that is unknown, or a
password that would be wanted, is an error with the command that settles it.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from edge.devices.device import STALL_S, Done, LinkLost
from edge.devices.needs import Need
from edge.devices.process import Process, receive, send
from edge.errors import UsageError

_ROOT = ".local/share/edge"  # below the home that a login starts in
_CONNECT_S = 15
NEED = Need("devices over ssh", ("ssh",), "-V", "apt-get install openssh-client")
# 255 is what ssh itself ends with. A program's own 255 becomes 254; one that a signal killed is
# 128 + n because a shell stands between it and sshd, which would make 255 of it.
_WRAPPED = 'printf %s "$0"; "$@"; c=$?; [ $c = 255 ] && c=254; exit $c'

# What OpenSSH says -> what a person can do.
_SAID = (
    ("Host key verification failed", "its host key is not known, or has changed",
     "look at it yourself once: ssh {target}"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed",
     "if that is right, forget the old one: ssh-keygen -R {host}"),
    ("Permission denied", "it does not let us in", "try: ssh {target}; then set up a key: ssh-copy-id {target}"),
    ("Could not resolve hostname", "there is no machine of that name", "check the name; try: ssh {target}"),
    ("Connection refused", "nothing listens there", "is sshd running? on a Raspberry Pi: raspi-config, Interface, SSH"),
    ("No route to host", "there is no way to it", "is it on, and on this network?"),
    ("timed out", "it does not answer", "is it on, and on this network?"),
    ("Bad configuration option", "ssh does not understand your configuration", "try: ssh {target}"),
)  # fmt: skip


class Ssh:
    """A host that the `ssh` program reaches."""

    def __init__(self, target: str, port: str | None, root: str, address: str) -> None:
        self.address, self.root, self.python = address, root, ""
        self._target = target
        config = os.environ.get("EDGE_SSH_CONFIG")  # in place of the user's: for rigs
        self._folder: str | None = tempfile.mkdtemp(prefix="edge-ssh-")
        self._command = [
            "ssh", "-T", *(["-p", port] if port else []), *(["-F", config] if config else []),
            "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}", "-o", "LogLevel=ERROR",
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4",
            "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self._folder}/c",
            "--", target,
        ]  # fmt: skip

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        return self.open(argv).talk(stdin, timeout_s)

    def push(self, path: Path, remote: str) -> None:
        send(self, ["sh", "-c", 'cat > "$1"', "sh", remote], path, remote)

    def pull(self, remote: str, path: Path) -> None:
        receive(self, remote, path)

    def open(self, argv: Sequence[str]) -> Process:
        mark = f"edge-{secrets.token_hex(8)}:"
        command = " ".join(map(shlex.quote, ["sh", "-c", _WRAPPED, mark, *argv]))
        return Process([*self._command, command], name=self.address, judge=self._judge, begins=mark.encode())

    def close(self) -> None:
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if os.path.exists(f"{folder}/c"):
            leave = [*self._command[:-2], "-O", "exit", *self._command[-2:]]
            subprocess.run(leave, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=STALL_S)
        shutil.rmtree(folder, ignore_errors=True)

    def _judge(self, code: int, err: bytes) -> None:
        if code not in (255, -9):
            return
        said = err.decode("utf-8", errors="replace").strip()
        host = self._target.rpartition("@")[2]
        for words, meaning, hint in _SAID:
            if words in said:
                raise LinkLost(f"{self.address}: {meaning}", hint=hint.format(target=self._target, host=host))
        last = said.splitlines()[-1] if said else "ssh was ended"
        raise LinkLost(f"{self.address}: the link broke: {last:.200}", hint="run the same command again: it goes on")


def connect(rest: str) -> Ssh:
    """`[user@]host[:port][/store]`; a host of the user's ssh config is one too. Nothing is reached for yet."""
    where, slash, path = rest.partition("/")
    found = re.fullmatch(r"((?:[^@\s]+@)?(?:\[[0-9A-Fa-f:.%]+\]|[^@:\s\[\]]+))(?::(\d+))?", where)
    if not found or found[1].startswith("-"):
        raise UsageError(f"ssh://{rest} is no address", hint="give ssh://user@host or ssh://user@host:port")
    target = re.sub(r"[\[\]]", "", found[1])
    return Ssh(target, found[2], slash + unquote(path) if path else _ROOT, f"ssh://{rest}")
