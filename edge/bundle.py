"""The bundle: a folder other programs can use as it is, plus `edge.json`, written last.

    out/smollm2-gguf-q4_k_m/
      model.gguf  tokenizer.json  tokenizer_config.json  chat_template.jinja  config.json
      edge.json          what it is, what it came from, how it was proven, every file's sha256

A folder without `edge.json` is not a bundle: a killed export cannot leave half of one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edge.errors import InputError, UsageError

SCHEMA_VERSION = 1
MANIFEST = "edge.json"
_CHUNK_BYTES = 1 << 20
_MANIFEST_LIMIT_BYTES = 16 << 20
_MAY_LACK = ("quality", "selftest")


@dataclass(frozen=True)
class File:
    """One file of the bundle: where it lies below the bundle folder, and what it must be."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The manifest `edge.json`, as plain frozen data.

    `quality` is the gate's record (`edge.export.verify`), or `None` with `proven` false for
    an export that was made with `--no-gate`. `selftest` holds token ids: what goes in and
    the greedy tokens that must come out on every device. `parts` names the files that a model
    of several files has beside `model_file`, by what they do ("vision", "embedding", ...);
    `image` says how a picture becomes pixels for the vision part.
    """

    name: str
    family: str
    format: str
    quantization: str
    model_file: str
    context_length: int
    vocab_size: int
    stop_ids: tuple[int, ...]
    source: Mapping[str, Any]
    files: tuple[File, ...]
    proven: bool
    quality: Mapping[str, Any] | None = None
    selftest: Mapping[str, Any] | None = None
    licence: str | None = None
    template_sha256: str | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def id(self) -> str:
        """Twelve hex digits that name exactly these bytes: a hash over files and manifest."""
        return hashlib.sha256(to_json(self).encode()).hexdigest()[:12]

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)


def to_json(bundle: Bundle) -> str:
    return json.dumps(dataclasses.asdict(bundle), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def sha256_of(path: Path) -> str:
    """Hash a file in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def safe_path(name: str) -> PurePosixPath:
    """A path that stays below the bundle folder on every system, or `InputError`."""
    path = PurePosixPath(name)
    bad = (
        not name
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or ":" in name
        or any(ord(c) < 32 for c in name)
        or str(path) != name
    )
    if bad:
        raise InputError(f"the manifest names a file outside its bundle: {name!r}")
    return path


def list_files(folder: Path) -> tuple[File, ...]:
    """Every regular file below `folder` except the manifest, sorted by path."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            found.append(File(name, path.stat().st_size, sha256_of(path)))
    return tuple(found)


def write(bundle: Bundle, folder: Path) -> None:
    """Write `edge.json` last and atomically: rename after fsync, then fsync the folder."""
    temporary = folder / (MANIFEST + ".part")
    with temporary.open("w", encoding="utf-8") as f:
        f.write(to_json(bundle))
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, folder / MANIFEST)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: Path) -> Bundle:
    """Read and check the manifest; file contents are checked by `check`.

    Raises `UsageError` when `folder` is no bundle, `InputError` when its manifest is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            hint="make one with: edge export SOURCE --format gguf -o FOLDER",
        )
    if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
        raise InputError(f"{path} is larger than a manifest can be")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is damaged: {err}", hint="export it again") from err
    return parse(data, str(path))


def parse(data: Any, where: str) -> Bundle:
    """The manifest from decoded JSON; `where` names it in errors."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: wanted an object, found {type(data).__name__}")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{where} has manifest schema {version!r}, this edge reads {SCHEMA_VERSION}",
            hint="use the edge that wrote it, or export it again",
        )
    fields = {f.name: f for f in dataclasses.fields(Bundle)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise InputError(f"{where} has unknown keys: {', '.join(unknown)}")
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}", hint="export it again")
    try:
        files = tuple(File(str(f["path"]), int(f["size_bytes"]), str(f["sha256"])) for f in data["files"])
        stop_ids = tuple(int(i) for i in data["stop_ids"])
        context_length, vocab_size = int(data["context_length"]), int(data["vocab_size"])
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise InputError(f"{where} is damaged: {err!r}", hint="export it again") from err
    listed = [safe_path(f.path) for f in files]
    if len({str(p).casefold() for p in listed}) != len(listed):
        raise InputError(f"{where} names a file twice (or twice but for upper and lower case)")
    if str(safe_path(str(data["model_file"]))) not in {str(p) for p in listed}:
        raise InputError(f"{where}: its model file {data['model_file']!r} is not among its files")
    parts = data.get("parts", {})
    if not isinstance(parts, dict) or not all(isinstance(v, str) for v in parts.values()):
        raise InputError(f"{where}: parts is no map from a part to its file")
    for part, name in parts.items():
        if str(safe_path(name)) not in {str(p) for p in listed}:
            raise InputError(f"{where}: its {part} file {name!r} is not among its files")
    for key in ("name", "family", "format", "quantization"):
        if not isinstance(data[key], str) or not data[key].isprintable():
            raise InputError(f"{where}: {key} is not text")
    for key in ("source", "memory", "plan", "tools", "image", "quality", "selftest"):
        found = data.get(key)
        if not isinstance(found, dict) and (found is not None or (key in data and key not in _MAY_LACK)):
            raise InputError(f"{where}: {key} is no table")
    for key, value in data.get("memory", {}).items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1 << 60:
            raise InputError(f"{where}: memory has no number for {key}")
    rest = {k: v for k, v in data.items() if k not in {"files", "stop_ids", "context_length", "vocab_size"}}
    return Bundle(**rest, files=files, stop_ids=stop_ids, context_length=context_length, vocab_size=vocab_size)


def check(folder: Path, bundle: Bundle | None = None) -> Bundle:
    """Hash every file against the manifest; `InputError` names the first that differs."""
    bundle = bundle or read(folder)
    for entry in bundle.files:
        path = Path(folder) / entry.path
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path} is missing from the bundle", hint="export it again")
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise InputError(
                f"{path} is damaged: {size} bytes, the manifest says {entry.size_bytes}", hint="export it again"
            )
        if sha256_of(path) != entry.sha256:
            raise InputError(f"{path} is damaged: its sha256 is not the manifest's", hint="export it again")
    return bundle
