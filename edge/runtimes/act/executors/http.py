"""A server on this machine: `http = { method = "POST", url = "http://127.0.0.1:8123/api/lights/{room}" }`.

Nothing but loopback is ever asked, whatever a name means elsewhere; redirects are not followed, and no proxy is used.
`{name}` in the URL is an argument's value, escaped; the others are the query of a GET or DELETE, and the JSON body
of a POST, PUT or PATCH. `headers` are fixed.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.runtimes.act.bounded import bounded
from edge.runtimes.act.manifest import Tool
from edge.runtimes.act.ran import Arguments, Place, Ran, ToolError
from edge.runtimes.act.words import cut

_SLOT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WITH_BODY = ("POST", "PUT", "PATCH")
_METHODS = ("GET", "DELETE", *_WITH_BODY)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOSTS = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}


@dataclass(frozen=True)
class Request:
    """`target` is the path and the query, with slots."""

    method: str
    host: str
    port: int
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)


def read(value: Any, *, folder: Path, where: str) -> Request:
    about = {"url": value} if isinstance(value, str) else value
    if not isinstance(about, dict) or not isinstance(about.get("url"), str):
        raise InputError(f"{where}: http must be a URL, or a table with url, not {value!r}")
    if unknown := set(about) - {"url", "method", "headers"}:
        raise InputError(f"{where}: unknown key {sorted(unknown)[0]!r} in http", hint="there are: headers, method, url")
    method, headers = about.get("method", "GET"), about.get("headers", {})
    if method not in _METHODS:
        raise InputError(f"{where}: method of http must be one of {', '.join(_METHODS)}, not {method!r}")
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise InputError(f"{where}: headers of http must be a table of texts")
    for name, text in headers.items():
        if not _HEADER.fullmatch(name) or not (text.isascii() and text.isprintable()):
            raise InputError(f"{where}: headers of http must be plain ASCII of one line, not {name}: {text!r}")
    parts, port = _parts(about["url"], where)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        hint = f"for example {urllib.parse.quote(target, safe='/?&=+{}%:,;@')}"
        raise InputError(f"{where}: {about['url']!r} has characters that a URL spells with %", hint=hint)
    return Request(method, _HOSTS[parts.hostname or ""], port, target, headers)


def describe(spec: Request, arguments: Arguments) -> str:
    target, body = _filled(spec, arguments)
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{spec.method} http://{host}:{spec.port}{target}{f' {body.decode()}' if body else ''}"


def run(tool: Tool, arguments: Arguments, place: Place) -> Ran:
    spec: Request = tool.run
    target, body = _filled(spec, arguments)
    connection = http.client.HTTPConnection(spec.host, spec.port, timeout=tool.timeout_s)
    headers = {**spec.headers, **({"Content-Type": "application/json"} if body else {})}
    try:
        return bounded(lambda: _asked(connection, spec.method, target, body, headers, tool), tool.timeout_s)
    finally:
        connection.close()


def _asked(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes, headers: dict[str, str], tool: Tool
) -> Ran:
    try:
        connection.connect()
    except OSError as err:
        return Ran(False, b"", f"nothing answers at {connection.host}:{connection.port}: {err.strerror or err}")
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        data = answer.read(tool.output_bytes + 1)
    except (OSError, http.client.HTTPException) as err:
        return Ran(False, b"", f"the server broke off: {type(err).__name__}: {err}", ended=False)
    if len(data) > tool.output_bytes:
        return Ran(False, cut(data, tool.output_bytes), f"more than {tool.output_bytes} bytes of answer", ended=False)
    if 300 <= answer.status < 400:
        return Ran(False, b"", f"it wants to be asked elsewhere (HTTP {answer.status}), which is not followed")
    ok = answer.status < 300
    return Ran(ok, data, "" if ok else f"HTTP {answer.status} {answer.reason}", ended=answer.status < 500)


def _filled(spec: Request, arguments: Arguments) -> tuple[str, bytes]:
    used = set(_SLOT.findall(spec.target))
    if missing := sorted(used - set(arguments)):
        raise ToolError(f"the URL needs {missing[0]!r}, which was not given")
    path, mark, query = spec.target.partition("?")
    rest = {name: value for name, value in arguments.items() if name not in used}
    path = "/".join(_segment(segment, arguments) for segment in path.split("/"))
    query = _SLOT.sub(lambda found: urllib.parse.quote(_text(arguments[found[1]]), safe=""), query)
    if spec.method in _WITH_BODY:
        return path + mark + query, json.dumps(rest, ensure_ascii=False).encode()
    more = urllib.parse.urlencode({name: _text(value) for name, value in rest.items()})
    return path + ("?" if query or more else "") + "&".join(filter(None, (query, more))), b""


def _segment(segment: str, arguments: Arguments) -> str:
    """One part of the path. A value stays within it: it is neither empty nor a step upwards."""
    filled = _SLOT.sub(lambda found: urllib.parse.quote(_text(arguments[found[1]]), safe=""), segment)
    if _SLOT.search(segment) and filled in ("", ".", ".."):
        raise ToolError(f"{filled!r} is no name in a path")
    return filled


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parts(url: str, where: str) -> tuple[urllib.parse.SplitResult, int]:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or 80
    except ValueError as err:
        raise InputError(f"{where}: {url!r} is no URL: {err}") from err
    if parts.scheme != "http" or parts.hostname not in _HOSTS or parts.username or parts.fragment:
        raise InputError(
            f"{where}: {url!r} is not on this machine",
            hint="http is for servers at http://127.0.0.1, localhost or [::1]",
        )
    return parts, port
