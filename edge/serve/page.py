"""The chat page: one file that needs nothing else, put together from its three parts."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

_PARTS = Path(__file__).parent / "web"


@functools.cache
def html() -> str:
    """The whole page."""
    return _read("page.html").replace("/* page.css */", _read("page.css")).replace("/* page.js */", _read("page.js"))


@functools.cache
def policy() -> str:
    """What the browser lets the page do: run exactly this script, show pictures that it holds, talk to this server."""
    return "; ".join((
        "default-src 'none'",
        f"script-src '{_hash('page.js')}'",
        f"style-src '{_hash('page.css')}'",
        "img-src data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ))  # fmt: skip


def _read(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _hash(name: str) -> str:
    # Of what stands between the tags, which are right before and after the part.
    return "sha256-" + base64.b64encode(hashlib.sha256(_read(name).encode()).digest()).decode()
