"""What `edge serve` needs on a device beside the runtimes: a few Python packages, for a service that was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge import cache
from edge.bundle import sha256_of
from edge.devices.pack import wheels
from edge.progress import Progress

# starlette and uvicorn, and what they say that they need.
_PACKAGES = ("starlette", "uvicorn", "anyio", "click", "h11", "idna", "typing_extensions", "prometheus_client")
_KIND = "packs-web"


def build(python: str, progress: Progress) -> Path:
    """A folder of them for arm64 and Python `python` ("3.11"), from the cache or made now."""
    wanted = [f"{name}=={wheels.version_of(name, extra='serve')}" for name in _PACKAGES]
    key = cache.key(wanted=wanted, python=python, made_by=sha256_of(Path(__file__)))
    if (kept := cache.find(_KIND, key)) is None:
        progress.start("fetching the server's packages")
        with cache.building(_KIND, key) as work:
            for wheel in wheels.download(wanted, python, work / "wheels"):
                wheels.unpack(wheel, work)
            shutil.rmtree(work / "wheels")
        kept = cache.root() / _KIND / key
    return kept
