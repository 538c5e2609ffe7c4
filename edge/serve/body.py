"""Reading what a client sends: not more than fits, not longer than it may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from edge.serve.refusal import Refusal

MAX_BYTES = 32 << 20  # a few photos, as base64
_MAX_TOGETHER = 128 << 20  # of all requests that are being read, or wait to be understood
_READ_S = 60.0


class Bodies:
    """Reads requests, and knows how much of them is held."""

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, max_together: int = _MAX_TOGETHER, read_s: float = _READ_S
    ) -> None:
        self._max_bytes, self._max_together, self._read_s = max_bytes, max_together, read_s
        self._held = 0

    @contextlib.asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted until the context is left: until it is understood.

        `Refusal` 413 when it is too large, 408 when it does not come, 415 when it is no JSON.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Anything else, pages of strangers may send without being asked first whether they may.
        if kind != "application/json":
            raise Refusal(415, f"Content-Type must be application/json, not {kind[:100]!r}")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > self._max_bytes):
            raise self._too_large()
        parts: list[bytes] = []
        try:
            await self._arrived(request, parts)
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _arrived(self, request: Request, parts: list[bytes]) -> None:
        size = 0
        try:
            async with asyncio.timeout(self._read_s):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self._held += len(part)
                    if size > self._max_bytes:
                        raise self._too_large()
                    if self._held > self._max_together:
                        raise Refusal(503, "the server holds too many large requests", retry_s=5)
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {self._read_s:g} s") from None
        except ClientDisconnect:
            raise Refusal(499, "the client has gone") from None

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is larger than {self._max_bytes >> 20} MiB", code="request_too_large")
