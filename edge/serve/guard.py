"""Who may ask: checks that stand before everything else.

1. A browser can be made to believe that a stranger's name is this machine (DNS rebinding). So the `Host` that a
   request names must be this machine: an address, its name, or a name that was allowed. On loopback, only loopback.
2. A page of somebody else may not use the model through its visitor's browser: an `Origin` must be our own, or one
   that was allowed.
3. Where a token is set, everything but the page itself and `/health` needs it, compared in constant time.
4. Whoever does not take what was sent to him for `_SEND_S` seconds is hung up on.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from edge.serve.refusal import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_SEND_S = 60.0
_OPEN_PATHS = ("/", "/health")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class HungUp(Exception):
    """A client does not read what it asked for."""


class Guard:
    """An ASGI application around another."""

    def __init__(
        self,
        app: App,
        *,
        loopback: bool,
        token: str | None = None,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        send_s: float = _SEND_S,
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._token = token.encode() if token else None
        own = socket.gethostname().lower()
        self._hosts = {*_LOOPBACK, *map(str.lower, hosts), *(() if loopback else (own, f"{own}.local"))}
        self._origins = frozenset(o.rstrip("/").lower() for o in origins)
        self._send_s = send_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        origin = headers.get("origin", "").lower()
        shared = origin in self._origins

        async def patient(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                if shared:
                    more += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
                message["headers"] = [*message.get("headers", ()), *more]
            try:
                async with asyncio.timeout(self._send_s):
                    await send(message)
            except TimeoutError:
                raise HungUp from None

        try:
            self._check(scope, headers, origin)
            if shared and scope["method"] == "OPTIONS":
                await _answer(patient, 204, b"", {
                    "Access-Control-Allow-Methods": "GET, POST",
                    "Access-Control-Allow-Headers": "authorization, content-type",
                    "Access-Control-Max-Age": "600",
                })  # fmt: skip
                return
            self._check_token(scope, headers)
            await self._app(scope, receive, patient)
        except Refusal as err:
            import json

            body = json.dumps(err.body).encode()
            await _answer(patient, err.status, body, {"Content-Type": "application/json", **err.headers})
        except HungUp:
            # What is on its way to nobody is thrown away; closing politely would wait for it.
            if connection := scope.get("state", {}).get("connection"):
                connection.transport.abort()
            await asyncio.sleep(0)

    def _check(self, scope: MutableMapping[str, Any], headers: dict[str, str], origin: str) -> None:
        host = headers.get("host", "")
        if not self._known(name_of(host)):
            raise Refusal(
                403,
                f"this server is not called {host[:200]!r}; start it with --allow-host to let it be",
                code="unknown_host",
            )
        if origin and origin not in self._origins and urlsplit(origin).netloc != host.lower():
            raise Refusal(
                403,
                f"pages of {origin[:200]!r} may not ask here; start it with --allow-origin to let them",
                code="unknown_origin",
            )

    def _known(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if self._loopback:
            return False
        # No name stands behind an address, so no stranger's name can be made to mean it.
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_token(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> None:
        if self._token is None or scope["path"] in _OPEN_PATHS:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise Refusal(
                401,
                "a token is needed here: Authorization: Bearer TOKEN (what clients call the API key)",
                code="invalid_api_key",
            )


def name_of(host: str) -> str:
    """The name in a `Host` header, without its port.

    >>> name_of("[::1]:8080"), name_of("Pi.local:80")
    ('::1', 'pi.local')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    raw = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
