"""Text part and vision part as one artifact: one folder, one account of all tensors of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.export.artifact import Artifact, Entry, link
from edge.export.vision.split import Split


def joined(
    text: Artifact,
    vision: Artifact,
    split: Split,
    folder: Path,
    *,
    parts: Mapping[str, str],
    files: Sequence[str],
    rule: Mapping[str, Any],
    ledger: Sequence[Entry] | None = None,
) -> Artifact:
    """What the two are together. `files` are already in `folder`; `ledger` is the text part's, in the text's names."""
    entries = [
        replace(e, source=tuple(split.names[name] for name in e.source))
        for e in (text.ledger if ledger is None else ledger)
    ]
    return replace(
        text,
        folder=folder,
        files=tuple(files),
        parts=dict(parts),
        image=dict(rule),
        ledger=(*entries, *vision.ledger),
        plan={**text.plan, "vision": dict(vision.plan)},
        tools={**text.tools, **vision.tools},
        warnings=(*text.warnings, *vision.warnings),
    )


def bring(artifact: Artifact, names: Sequence[str], folder: Path) -> None:
    """The artifact's files under the same names in `folder`."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        link(artifact.folder / name, target)
