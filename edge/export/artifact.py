"""Artifact: a converted model on disk, with an account of where every source tensor went."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One line of the coverage ledger.

    `source` tensors became `target` tensors (several of each when they were packed or
    split); `type` is the stored type in the format's own word; `n_elements` and `n_bytes`
    are those of the targets, scales and zero points included. `transform` says what was
    done: copy, permute, pack, tie, fold, drop (with the reason in `note`).
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    type: str
    n_elements: int
    n_bytes: int
    transform: str = "copy"
    note: str = ""


@dataclass(frozen=True)
class Artifact:
    """What a format made. `model_file` and `files` are names below `folder`.

    `parts` names those of the files that a model of several has beside `model_file`, by what
    they do ("vision", "embedding"); `image` says how a picture becomes pixels for it.
    """

    format: str
    quantization: str
    folder: Path
    model_file: str
    files: tuple[str, ...]
    ledger: tuple[Entry, ...]
    context_length: int
    plan: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / self.model_file


@dataclass(frozen=True)
class Quantization:
    """A format's own name for a way to store weights.

    `bits` is the gate class (32, 16, 8, 6, 5, 4, 3, 2); `bits_per_weight` is what the
    quantized matrices should reach, scales included; `calibrated` says that calibration
    text is used.
    """

    name: str
    bits: int
    bits_per_weight: float
    calibrated: bool = False
    about: str = ""


@dataclass(frozen=True)
class Planned:
    """A quantization that was made for one model: `types` are a format's own words, by the parts it varies."""

    kind: Quantization
    types: Mapping[str, str]

    def record(self) -> dict[str, Any]:
        """What stands in the manifest, and is enough to judge the bundle by."""
        return {**dataclasses.asdict(self.kind), "types": dict(self.types)}


@dataclass(frozen=True)
class Need:
    """What a conversion will take, said before it starts; `who` takes the memory, in words for who has too little."""

    ram_bytes: int
    disk_bytes: int
    time_s: float
    who: str = "this export"


_RECORD = "artifact.json"


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def save(artifact: Artifact) -> None:
    """Write `artifact.json` beside the files, with their sizes, so that `restore` can check them."""
    record = {
        **dataclasses.asdict(artifact),
        "folder": None,
        "sizes": {name: (artifact.folder / name).stat().st_size for name in artifact.files},
    }
    (artifact.folder / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))


def restore(folder: Path) -> Artifact | None:
    """The artifact that `save` described in `folder`; `None` when a file is missing or cut short."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        if any((folder / name).stat().st_size != size for name, size in record.pop("sizes").items()):
            return None
    except (OSError, ValueError):
        return None
    record["folder"] = folder
    record["files"] = tuple(record["files"])
    record["warnings"] = tuple(record["warnings"])
    record["ledger"] = tuple(
        Entry(**{**row, "source": tuple(row["source"]), "target": tuple(row["target"])}) for row in record["ledger"]
    )
    return Artifact(**record)


def kind(module: Any, artifact: Artifact) -> Quantization:
    """What an artifact is stored as: one of its format's quantizations, or one that was planned for it."""
    planned = artifact.plan.get("planned")
    if planned is None:
        return module.QUANTIZATIONS[artifact.quantization]  # type: ignore[no-any-return]
    return Quantization(**{f.name: planned[f.name] for f in dataclasses.fields(Quantization)})


def portable(module: Any, family: str | None = None) -> dict[str, str]:
    """A format's own quantization for each portable name ("8bit", ...); some families have others (`PORTABLE_FOR`)."""
    return {**module.PORTABLE, **getattr(module, "PORTABLE_FOR", {}).get(family, {})}
