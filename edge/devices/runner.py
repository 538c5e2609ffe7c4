"""How a bundle is started on a device: with its own Python where that has what is needed, else with our pack.

A GGUF bundle may be started by one static program instead, which is asked for by name (`ALONE`).
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import cache
from edge.bundle import Bundle, sha256_of
from edge.devices import shipped
from edge.devices.facts import Facts
from edge.devices.store import Entry
from edge.errors import DeviceError, UsageError
from edge.find import load
from edge.progress import Progress

# Format -> the Python package that runs it, and the extra that installs it.
_RUNTIME = {"gguf": "llama_cpp", "onnx": "onnxruntime", "tflite": "ai_edge_litert"}
ALONE = "llama.cpp"
_PYTHON = (3, 11)
_LARGE_BYTES = 1 << 18  # files from here on are shared between packs one by one

# `listen` is a server, and needs packages that the other verbs do without: whichever flash brought them. `alone` is
# edge act for who sits there. What acts is kept in the store: a phone's shell has no home to keep it in.
_START = """\
root=$(cd "${{0%/*}}/.." && pwd -P) || exit 1
export ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 EDGE_STATE="${{EDGE_STATE:-$root/state}}"
[ -w "${{HOME:-/}}" ] || {{ mkdir -p "$root/home" 2>/dev/null && export HOME="$root/home"; }}
verb=$1 bundle=$root/bundles/{bundle} runs=edge.runtimes.worker
case $verb in
listen)
  shift; runs=edge.serve; set -- "$bundle" "$@"
  for web in "$root"/packs/web-*; do export EDGE_ALSO="$web"; done
  ;;
alone) shift; runs=edge; set -- act "$bundle" --no-check "$@" ;;
*) set -- "$bundle" "$@" ;;
esac
{start} -m $runs "$@"
"""

_START_ALONE = """\
root=$(cd "${{0%/*}}/.." && pwd -P) || exit 1
exec "$root/packs/{pack}/{program}" "$root/bundles/{bundle}" {bundle} "$@"
"""


@dataclass(frozen=True)
class Pack:
    """Files that a bundle needs to run: large ones by what is in them, and a tar of the small ones."""

    id: str
    rest: Entry
    large: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Runner:
    """`start` is a shell script that takes a verb of the worker, `listen` or `alone`; `how` says it in words."""

    start: str
    how: str
    packs: tuple[Pack, ...]


def choose(
    bundle: Bundle, facts: Facts, progress: Progress, *, serves: bool = False, wanted: str | None = None
) -> Runner:
    """What starts `bundle` there; with `serves`, as a server too; by the program `wanted` if one is named.

    Raises `DeviceError` when nothing does.
    """
    if wanted is not None:
        return _alone(bundle, facts, progress, serves=serves)
    lacking = lacks(bundle, facts)
    if not lacking:
        code = _code()
        web = [_web(facts.python_version, progress)] if serves else []
        place = f'PYTHONPATH="$root/packs/{code.id}${{EDGE_ALSO:+:$EDGE_ALSO}}"'
        start = f"{place} exec {_quoted(facts.python or 'python3')}"
        version = ".".join(map(str, facts.python_version))
        return Runner(_START.format(start=start, bundle=bundle.id), f"its own Python {version}", (code, *web))
    if facts.profile.machine != "aarch64" or facts.bits != 64:
        raise DeviceError(
            f"nothing can run a {bundle.format} bundle there: its Python {lacking}, and there is no runtime pack "
            f"for {facts.profile.machine} ({facts.bits} bit)",
            hint=f"install there: pip install 'edge-deploy[{bundle.format}]', and name that Python with --python",
        )
    level = load("edge.devices.pack", "levels").best(facts.profile.features)
    return packed(bundle, level.name, progress, serves=serves)


def packed(bundle: Bundle, level: str, progress: Progress, *, serves: bool = False) -> Runner:
    """What starts `bundle` with our own pack, for arm64 processors of `level`."""
    made = load("edge.devices.pack", "build").build(
        [bundle.format], level, vision=bool(bundle.image), progress=progress
    )
    words = made.start(f"$root/packs/{made.id}")
    start = "exec " + " ".join(f'"{word}"' for word in words)
    web = [_web(tuple(map(int, made.python.split("."))), progress)] if serves else []
    return Runner(_START.format(start=start, bundle=bundle.id), f"the runtime pack for {level}", (_split(made), *web))


def _alone(bundle: Bundle, facts: Facts, progress: Progress, *, serves: bool) -> Runner:
    """llama.cpp as one program. `UsageError` for what it cannot do, `DeviceError` where it cannot run."""
    otherwise = "leave --runner out: the runtime pack can"
    if bundle.format != "gguf":
        raise UsageError(f"{ALONE} alone runs GGUF bundles; {bundle.name} is {bundle.format}", hint=otherwise)
    if bundle.image:
        raise UsageError(f"{bundle.name} sees pictures, which {ALONE} alone does not", hint=otherwise)
    if serves:
        raise UsageError(
            f"a service serves what is current there, which {ALONE} alone cannot",
            hint=f"{otherwise}; or take the service away: edge remove DEVICE --service",
        )
    if facts.profile.machine != "aarch64" or facts.bits != 64:
        raise DeviceError(
            f"there is no {ALONE} alone for {facts.profile.machine} ({facts.bits} bit), only for arm64",
            hint="leave --runner out",
        )
    alone = load("edge.devices.pack", "alone")
    level = load("edge.devices.pack", "levels").best(facts.profile.features)
    folder: Path = alone.build(level, progress)
    files = sorted(folder.iterdir())
    pack = _tarred("alone", [(path.name, path, os.access(path, os.X_OK)) for path in files])
    start = _START_ALONE.format(pack=pack.id, program=alone.PROGRAM, bundle=bundle.id)
    return Runner(start, f"{ALONE} alone for {level.name}", (pack,))


def _web(python: Sequence[int], progress: Progress) -> Pack:
    """What a server needs beside what runs the model."""
    folder: Path = load("edge.devices.pack", "web").build(".".join(map(str, python[:2])), progress)
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    return _tarred("web", [(p.relative_to(folder).as_posix(), p, False) for p in names])


def lacks(bundle: Bundle, facts: Facts) -> str | None:
    """Why the device's own Python cannot run `bundle`, in words; `None` when it can."""
    if facts.python is None:
        return "is not there"
    if facts.python_version < _PYTHON:
        return f"is {'.'.join(map(str, facts.python_version))}, and {'.'.join(map(str, _PYTHON))} is needed"
    wanted = ["numpy", "tokenizers", "jinja2", *(["PIL"] if bundle.image else [])]
    if bundle.format in _RUNTIME:
        wanted.append(_RUNTIME[bundle.format])
    missing = [name for name in wanted if name not in facts.modules]
    return f"lacks {', '.join(missing)}" if missing else None


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _code() -> Pack:
    """edge's own runtimes, for a Python that has the libraries."""
    return _tarred("code", [(name, path, False) for name, path in shipped.files().items()])


def _split(made: object) -> Pack:
    """A runtime pack, as the store takes it."""
    folder: Path = made.folder  # type: ignore[attr-defined]
    name: str = made.id  # type: ignore[attr-defined]
    large, small = [], [("pack.json", folder / "pack.json", False)]
    for file in made.files:  # type: ignore[attr-defined]
        if file.size_bytes >= _LARGE_BYTES:
            large.append(Entry(file.sha256, file.path, file.size_bytes, folder / file.path, file.executable))
        else:
            small.append((file.path, folder / file.path, file.executable))
    rest = _tarred("pack", small)
    return Pack(name, rest.rest, tuple(large))


def _tarred(kind: str, files: Sequence[tuple[str, Path, bool]]) -> Pack:
    """A tar that depends on names and contents alone, kept in the cache."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, path, executable in sorted(files):
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755 if executable else 0o644
            tar.addfile(info, io.BytesIO(data))
    data = packed.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = cache.root() / "sent" / f"{kind}-{digest[:12]}.tar"
    if not path.is_file() or path.stat().st_size != len(data) or sha256_of(path) != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_bytes(data)
        os.replace(part, path)
    return Pack(f"{kind}-{digest[:12]}", Entry(digest, path.name, len(data), path))
