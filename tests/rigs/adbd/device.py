"""The device: what state it is in, who is connected, and which services it has."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from tests.rigs.adbd import shell, sync
from tests.rigs.adbd.faults import Faults
from tests.rigs.adbd.tree import Tree
from tests.rigs.adbd.wire import (
    AUTH,
    AUTH_PUBLIC_KEY,
    AUTH_TOKEN,
    CNXN,
    MAX_PAYLOAD,
    VERSION,
    Connection,
    Died,
    Lost,
    Message,
    Stream,
)

FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,fixed_push_symlink_timestamp"
_BOOT_S = 0.3
State = Literal["ready", "unauthorized", "silent"]


class Device:
    """A daemon on a port of its own; use it as a context manager.

    `unauthorized` is a phone that waits for somebody to confirm its dialog (`confirm`); `silent` one
    that does not answer, as when it is asleep or starting.
    """

    def __init__(self, tree: Tree, *, port: int = 0, state: State = "ready") -> None:
        self.tree, self.state, self.faults = tree, state, Faults()
        self.boots = 0
        self.asked = threading.Event()  # the dialog is on the screen
        self.served: list[str] = []  # names of the services that were opened
        self._port = port
        self._listener: socket.socket | None = None
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def serial(self) -> str:
        """What `adb connect` takes and `adb devices` shows."""
        return f"127.0.0.1:{self._port}"

    @property
    def off(self) -> bool:
        """Whether it is stopped, or has died."""
        return self._listener is None

    def start(self) -> None:
        self.tree.start()
        self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        self._port = self._listener.getsockname()[1]
        self.boots += 1
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Switch it off as a power cut does: everything ends where it is."""
        if self._listener is not None:
            # Closing a socket does not wake who waits for it in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in list(self._connections):
            connection.drop(Died)
        self._connections.clear()
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._processes.clear()
        self.tree.stop()
        self._listener = None

    def restart(self, after_s: float = _BOOT_S) -> None:
        self.stop()
        time.sleep(after_s)
        self.start()

    def unplug(self) -> None:
        """Cut every connection; the device goes on, and takes new ones."""
        for connection in list(self._connections):
            connection.drop(Lost)
        self._connections.clear()

    def confirm(self) -> None:
        """Somebody taps "allow" in the dialog."""
        self.state = "ready"
        for connection in list(self._connections):
            try:
                self._introduce(connection)
            except Lost:
                pass  # a server that has given up; it will come again

    def __enter__(self) -> Device:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.faults.release()
        self.stop()

    def welcome(self, connection: Connection, message: Message) -> None:
        if self.state == "silent":
            return
        if self.state == "ready":
            self._introduce(connection)
        elif message.command == CNXN or message.arg0 != AUTH_PUBLIC_KEY:
            # Every key is a stranger's: the host signs with each that it has, then offers one.
            connection.wire.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        else:
            self.asked.set()

    def service(self, name: str) -> Callable[[Stream], None] | None:
        self.served.append(name)
        kind = name.partition(":")[0].partition(",")[0]
        if kind in ("shell", "exec"):
            return lambda stream: shell.serve(stream, name, self.tree, self._processes.append)
        if kind == "sync":
            return lambda stream: sync.serve(stream, self.tree)
        if kind == "tcp":
            return _forward(int(name.split(":")[1]))
        if kind == "reboot":
            return lambda _stream: threading.Thread(target=self.restart, daemon=True).start()
        if kind == "root":
            return lambda stream: stream.write(b"adbd cannot run as root in production builds\n")
        return None

    def passing(self, n_bytes: int) -> None:
        try:
            self.faults.passing(n_bytes)
        except Died:
            # Others must see the death too, before this connection's thread ends.
            threading.Thread(target=self.stop, daemon=True).start()
            raise

    def _introduce(self, connection: Connection) -> None:
        known = {key: self.tree.properties[f"ro.product.{key}"] for key in ("name", "model", "device")}
        banner = "".join(f"ro.product.{key}={value};" for key, value in known.items())
        connection.wire.send(CNXN, VERSION, MAX_PAYLOAD, f"device::{banner}features={FEATURES}".encode())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _address = listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(peer, self)
            self._connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: Connection) -> None:
        connection.run()
        if connection in self._connections:
            self._connections.remove(connection)


def _forward(port: int) -> Callable[[Stream], None] | None:
    """To a port of the device's own loopback; nobody listening there is a refusal."""
    try:
        inner = socket.create_connection(("127.0.0.1", port), timeout=5)
    except OSError:
        return None
    inner.settimeout(None)

    def serve(stream: Stream) -> None:
        def inwards() -> None:
            try:
                while True:
                    inner.sendall(stream.read_some())
            except (Lost, Died, OSError):
                inner.close()

        threading.Thread(target=inwards, daemon=True).start()
        try:
            while data := inner.recv(64 << 10):
                stream.write(data)
        except OSError:
            pass

    return serve
