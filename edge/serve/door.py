"""The sockets: uvicorn, with patience limited, and an end that lets answers end.

1. Who connects and does not say what he wants is hung up on; uvicorn alone would wait for ever.
2. More than `_MOST` connections are told at once to come back later.
3. SIGTERM and Ctrl-C: nobody is let in any more, answers may finish within a grace period, streams end with words.
   A second Ctrl-C ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge.errors import EdgeError, UsageError
from edge.serve.guard import App
from edge.serve.refusal import Refusal
from edge.serve.turns import Turns

_SILENT_S = 20.0
_MOST = 2000
_BACKLOG = 2048


class _Door(H11Protocol):
    """One connection."""

    silent_s = _SILENT_S
    most = _MOST

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            refusal = Refusal(503, "too many connections", retry_s=5)
            body = json.dumps(refusal.body).encode()
            head = (
                f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            )
            transport.write(head.encode() + b"Retry-After: 5\r\nConnection: close\r\n\r\n" + body)
            transport.close()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The time for a whole head, however slowly its bytes come.
        if self.cycle is not None and not self.cycle.response_complete:
            self._heard()
        elif self._deadline is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(self.silent_s, self.transport.abort)

    def _heard(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """Serves `app` on an open socket until it is told to stop."""

    def __init__(self, app: App, turns: Turns, *, grace_s: float, ready: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app, http=_Door, ws="none", loop="asyncio", lifespan="off", log_config=None, access_log=False,
            server_header=False, backlog=_BACKLOG, timeout_keep_alive=30, timeout_graceful_shutdown=5,
        )  # fmt: skip
        super().__init__(config)
        self._turns, self._grace_s, self._ready = turns, grace_s, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # New connections are still answered, with 503, while answers end.
        draining = asyncio.ensure_future(self._turns.drain(self._grace_s))
        while not draining.done() and not self.force_exit:
            await asyncio.sleep(0.02)
        draining.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # As uvicorn's own, without sending the signal again at the end: to be stopped is how a server ends well.
        main = threading.current_thread() is threading.main_thread()
        heard = (signal.SIGINT, signal.SIGTERM) if main else ()
        before = {sig: signal.signal(sig, self.handle_exit) for sig in heard}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """An open socket. `UsageError` when this machine has no such address, `EdgeError` when the port is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as err:
        raise UsageError(f"{host!r} is no address of this machine: {err}") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as err:
        listener.close()
        raise EdgeError(
            f"cannot listen on {host}:{port}: {err.strerror or err}", hint="choose another port with --port"
        ) from None
    listener.setblocking(False)
    return listener


def make_room() -> None:
    """Let this process have as many connections open as it answers: many systems begin with 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
