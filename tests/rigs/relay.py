"""A wire between a client and a rig on loopback: it counts what goes over it, and can be as slow as a real one."""

from __future__ import annotations

import socket
import threading
import time


class Relay:
    """Passes connections to `port` on, at most `rate` bytes a second each way; `0` is as fast as it goes."""

    def __init__(self, port: int, rate: int = 0) -> None:
        self._to, self._rate = port, rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.passed = 0  # bytes, both ways
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            for pair in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        for end in (source, target):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        free_at = time.monotonic()
        try:
            while data := source.recv(1 << 18 if not self._rate else 1 << 15):
                if self._rate:
                    free_at = max(free_at, time.monotonic() - 0.01) + len(data) / self._rate
                    time.sleep(max(0.0, free_at - time.monotonic()))
                target.sendall(data)
                self.passed += len(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
