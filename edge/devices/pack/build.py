"""The runtime pack, put together: a folder that runs a bundle on any arm64 Linux, with nothing beneath it.

    run                                sh run -m edge.runtimes.worker ...
    lib/ld-linux-aarch64.so.1          glibc's own loader, started by name: no /lib is needed
    lib/*.so*                          what Python and the runtimes link to
    bin/python3.11  lib/python3.11/    CPython
    site/                              numpy, tokenizers, the runtimes, edge itself
    pack.json                          what it was made from; every file's sha256; written last

On Raspberry Pi OS it stands beside the system's Python and leaves it alone. On Android it is started by `adb
shell`, as user `shell`, from /data/local/tmp.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import json
import os
import py_compile
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge import cache
from edge.bundle import sha256_of
from edge.devices import shipped
from edge.devices.pack import llama, wheels
from edge.devices.pack.debian import Apt, Package, unpack
from edge.devices.pack.levels import Level, named
from edge.errors import EdgeError
from edge.progress import Progress, Silent

SCHEMA_VERSION = 1
MANIFEST = "pack.json"
MACHINE = "aarch64"
_TRIPLET = "aarch64-linux-gnu"
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_KIND = "packs"

# Shared libraries by package. What numpy's, onnxruntime's and LiteRT's wheels bring along is not among them.
_LIBRARIES = {
    "libc6": (
        "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1",
        "libutil.so.1",
    ),
    "libgcc-s1": ("libgcc_s.so.1",),
    "libstdc++6": ("libstdc++.so.6",),
    "zlib1g": ("libz.so.1",),
    "libexpat1": ("libexpat.so.1",),
    "libffi8": ("libffi.so.8",),
    "libssl3": ("libcrypto.so.3",),
    "libsqlite3-0": ("libsqlite3.so.0",),  # llama_cpp imports diskcache, which imports it
}  # fmt: skip
_NOT_OF_THE_STANDARD_LIBRARY = (
    "test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "distutils", "sitecustomize.py",
)  # fmt: skip
# Name, and the extra that brings it to the host. Beside what they say that they need, the runtimes import only:
# jinja2 markupsafe, llama_cpp diskcache and typing_extensions, LiteRT ml_dtypes.
_BASE: tuple[tuple[str, str | None], ...] = (
    ("numpy", None),
    ("tokenizers", None),
    ("jinja2", None),
    ("markupsafe", None),
)
_RUNTIMES: Mapping[str, tuple[tuple[str, str | None], ...]] = {
    "echo": (),
    "gguf": (("diskcache", "gguf"), ("typing_extensions", "gguf")),
    "onnx": (("onnxruntime", "onnx"),),
    "tflite": (("ai-edge-litert", "tflite"), ("ml_dtypes", "tflite")),
}
_VISION: tuple[tuple[str, str | None], ...] = (("pillow", "vision"),)
# Answers held to a form, and tools; not for whoever has neither here.
_ACTING: tuple[tuple[str, str | None], ...] = (
    ("llguidance", "act"), ("jsonschema", "act"), ("jsonschema-specifications", "act"), ("referencing", "act"),
    ("rpds-py", "act"), ("attrs", "act"), ("typing_extensions", "act"),
)  # fmt: skip

_RUN = """#!/bin/sh
# Start this pack's Python: sh run -m edge.runtimes.worker
here=${0%/*}
[ "$here" = "$0" ] && here=.
here=$(cd "$here" && pwd) || exit 1
unset LD_PRELOAD LD_LIBRARY_PATH PYTHONSTARTUP
export PYTHONHOME="$here" PYTHONPATH="$here/site${EDGE_ALSO:+:$EDGE_ALSO}" PYTHONNOUSERSITE=1 PYTHONUTF8=1
export PYTHONDONTWRITEBYTECODE=1
export ORT_DISABLE_TELEMETRY=1
# Android has no /tmp, and its shell no home of its own.
[ -n "$TMPDIR" ] || [ -w /tmp ] || export TMPDIR="$here"
[ -w "${HOME:-/}" ] || export HOME="${TMPDIR:-/tmp}"
exec "$here/lib/ld-linux-aarch64.so.1" --library-path "$here/lib" "$here/bin/python@VERSION@" "$@"
"""


@dataclass(frozen=True)
class File:
    """One file of the pack; `executable` is what a copy without modes must set again."""

    path: str
    size_bytes: int
    sha256: str
    executable: bool


@dataclass(frozen=True)
class Pack:
    """A pack on this machine. `id` names exactly its bytes; `start` is the command below its folder."""

    folder: Path
    id: str
    level: str
    formats: tuple[str, ...]
    vision: bool
    python: str
    inputs: Mapping[str, Any]
    files: tuple[File, ...]

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    def start(self, folder: str) -> tuple[str, ...]:
        """The command that starts its Python where the pack lies in `folder` on the device; arguments follow."""
        return ("sh", f"{folder}/run")


def build(formats: Sequence[str], level: str, *, vision: bool = False, progress: Progress | None = None) -> Pack:
    """The pack for bundles of `formats` on processors of `level`, from the cache or made now.

    Making it needs apt, pip, and for GGUF a cross compiler (`MissingError` names the line that installs it); having
    it needs nothing. The indexes of packages are read again only when something has to be made.
    """
    chosen = tuple(sorted(set(formats)))
    request = cache.key(request=_request(chosen, named(level), vision))
    note = cache.root() / _KIND / "requests" / request
    if note.is_file() and (found := cache.find(_KIND, note.read_text())):
        return read(found)
    progress = progress or Silent()
    progress.start("fetching Python and its libraries for arm64")
    apt = Apt(cache.root() / "apt-arm64", "arm64")
    apt.update()
    python = next((version for version in _PYTHONS if apt.has(f"python{version}-minimal")), None)
    if python is None:
        raise EdgeError(f"apt has no Python among {', '.join(_PYTHONS)} for arm64", hint="what do its sources have?")
    names = [f"python{python}-minimal", f"libpython{python}-minimal", f"libpython{python}-stdlib", *_LIBRARIES]
    packages = apt.find(names)
    key = cache.key(request=request, packages=sorted(p.sha256 for p in packages))
    if not cache.find(_KIND, key):
        with cache.building(_KIND, key) as work:
            _assemble(work, apt, packages, python, chosen, named(level), vision, progress)
    note.parent.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f"{request}.{os.getpid()}")
    part.write_text(key)
    os.replace(part, note)
    made = read(cache.root() / _KIND / key)
    _forget_older(made)
    return made


def _forget_older(made: Pack) -> None:
    """Keep one pack beside `made` of its kind: somebody may be sending it. Every version of edge makes a new one."""
    others = [p for p in made.folder.parent.glob(f"*/{MANIFEST}") if p.parent != made.folder]
    older = [p for p in sorted(others, key=lambda p: p.stat().st_mtime) if _kind(read(p.parent)) == _kind(made)]
    for path in older[:-1]:
        cache.discard(_KIND, path.parent.name)


def _kind(pack: Pack) -> tuple[tuple[str, ...], str, bool]:
    return pack.formats, pack.level, pack.vision


def read(folder: Path) -> Pack:
    """The manifest of a finished pack."""
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    data = json.loads(text)
    files = tuple(File(**entry) for entry in data["files"])
    return Pack(
        folder=folder, id=hashlib.sha256(text.encode()).hexdigest()[:12], level=data["level"],
        formats=tuple(data["formats"]), vision=data["vision"], python=data["python"],
        inputs=data["inputs"], files=files,
    )  # fmt: skip


def _request(formats: tuple[str, ...], level: Level, vision: bool) -> dict[str, Any]:
    return {
        "formats": formats,
        "level": level.name if "gguf" in formats else None,
        "vision": vision,
        "wheels": _requirements(formats, vision),
        "llama": llama.key() if "gguf" in formats else None,
        "edge": _code(),
        "made_by": sha256_of(Path(__file__)),
    }


def _requirements(formats: tuple[str, ...], vision: bool) -> list[str]:
    wanted = list(_BASE)
    for name in formats:
        if name not in _RUNTIMES:
            raise EdgeError(f"there is no runtime for {name!r} on arm64", hint=f"there are: {', '.join(_RUNTIMES)}")
        wanted += _RUNTIMES[name]
    if vision:
        wanted += _VISION
    if importlib.util.find_spec("llguidance") and importlib.util.find_spec("jsonschema"):
        wanted += _ACTING
    return sorted({f"{name}=={wheels.version_of(name, extra=extra)}" for name, extra in wanted})


def _assemble(
    work: Path, apt: Apt, packages: Sequence[Package], python: str, formats: tuple[str, ...], level: Level,
    vision: bool, progress: Progress,
) -> None:  # fmt: skip
    for package, path in zip(packages, apt.fetch(packages), strict=True):
        unpack(path, work, _placer(package.name, python))
    for name in (name for names in _LIBRARIES.values() for name in names):
        if not (work / "lib" / name).is_file():
            raise EdgeError(f"Debian's packages for arm64 hold no {name} any more")
    site = work / "site"
    site.mkdir()
    requirements = _requirements(formats, vision)
    progress.start("fetching the runtimes for arm64")
    folder = work / "wheels"
    found = wheels.download(requirements, python, folder)
    inputs = {
        "debian": {p.file: p.sha256 for p in packages},
        "wheels": {wheel.name: sha256_of(wheel) for wheel in found},
        "edge": _code(),
    }
    for wheel in found:
        wheels.unpack(wheel, site)
    shutil.rmtree(folder)
    if "gguf" in formats:
        inputs["llama.cpp"] = llama.package(level, site, progress)
    _copy_edge(site)
    _compile(work, python)
    (work / "run").write_text(_RUN.replace("@VERSION@", python))
    (work / "run").chmod(0o755)
    _write_manifest(work, python, formats, level, vision, inputs)


def _placer(package: str, python: str) -> Any:
    """Where the files of one Debian package go; what is not asked for goes nowhere."""
    libraries = _LIBRARIES.get(package, ())

    def place(path: PurePosixPath) -> PurePosixPath | None:
        standard = PurePosixPath("usr/lib", f"python{python}")
        if path == PurePosixPath("usr/bin", f"python{python}"):
            return PurePosixPath("bin", path.name)
        if path.is_relative_to(standard):
            inside = path.relative_to(standard)
            left_out = inside.parts[0] in _NOT_OF_THE_STANDARD_LIBRARY or inside.parts[0].startswith("config-")
            return None if left_out else PurePosixPath("lib", f"python{python}", inside)
        if path.name in libraries:
            return PurePosixPath("lib", path.name)
        if path.name == "copyright":
            return PurePosixPath("licences", package)
        return None

    return place


def _copy_edge(site: Path) -> None:
    for name, path in shipped.files().items():
        out = site / name
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out)


def _code() -> str:
    digest = hashlib.sha256()
    for path in shipped.files().values():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _compile(work: Path, python: str) -> None:
    """Compile ahead what this Python can compile for that one: a Raspberry Pi takes seconds for numpy alone."""
    ours = importlib.util.cache_from_source("x.py").rpartition("cpython-")[2].removesuffix(".pyc")
    if ours != python.replace(".", ""):
        return
    for folder in (work / "lib" / f"python{python}", work / "site"):
        compileall.compile_dir(
            folder, quiet=2, stripdir=str(work), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )


def _write_manifest(
    work: Path, python: str, formats: tuple[str, ...], level: Level, vision: bool, inputs: Mapping[str, Any]
) -> None:
    files = [
        {
            "path": path.relative_to(work).as_posix(),
            "size_bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "executable": os.access(path, os.X_OK) and path.stat().st_mode & 0o100 != 0,
        }
        for path in sorted(p for p in work.rglob("*") if p.is_file())
    ]
    record = {
        "schema_version": SCHEMA_VERSION, "machine": MACHINE, "python": python, "level": level.name,
        "needs": sorted(level.needs), "formats": formats, "vision": vision, "inputs": inputs, "files": files,
    }  # fmt: skip
    (work / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
