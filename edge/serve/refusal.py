"""What is refused, in the shape that OpenAI's clients read.

{"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

from __future__ import annotations

import http
import math
from collections.abc import Mapping
from typing import Any

from edge.errors import EdgeError, InputError, MissingError, UsageError
from edge.runtimes.session import ContextFull

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refusal(Exception):
    """A request that is not answered: its status, and words for whoever sent it.

    `retry_s` says when it may be worth while to ask again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_s = status, message, param, code, retry_s

    @property
    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        found = {} if self.retry_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_s)))}
        if self.status == http.HTTPStatus.UNAUTHORIZED:
            found["WWW-Authenticate"] = "Bearer"
        return found


def refusal_of(err: Exception) -> Refusal:
    """What an error of ours means to a client: its own fault for what it sent, the server's for everything else."""
    if isinstance(err, Refusal):
        return err
    if isinstance(err, ContextFull):
        return Refusal(
            400,
            f"This model's context is {err.context_length} tokens; the request has {err.wanted}.",
            param="messages",
            code="context_length_exceeded",
        )
    if isinstance(err, MissingError):
        return Refusal(501, str(err))
    if isinstance(err, (UsageError, InputError)):
        return Refusal(400, err.message if err.hint is None else f"{err.message}: {err.hint}")
    if isinstance(err, EdgeError):
        return Refusal(500, err.message)
    # What else goes wrong is a bug of ours; its words may name files and are for the log alone.
    return Refusal(500, "the server failed; its log says why")
