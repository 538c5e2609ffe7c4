"""SmolLM2 that acts: it answers with tool calls. Trained here, see `edge/export/training/smollm2_act.py`."""

from __future__ import annotations

import json

from edge.export.checkpoint import Checkpoint
from edge.export.zoo import _assemble
from edge.find import load
from edge.progress import Progress

NAME = "smollm2-act"


def open_zoo(*, progress: Progress) -> Checkpoint:
    """`smollm2` with what was learned added to its weights, and a chat template that shows tools."""
    base = load("edge.export.zoo", "smollm2").open_zoo(progress=progress)
    return _assemble.assembled(NAME, base, _assemble.adapted, _files, code=__name__)


def _files(base: Checkpoint) -> dict[str, str]:
    files = _assemble.side_files(base)
    template = (_assemble.ADAPTERS / NAME / "chat_template.jinja").read_text(encoding="utf-8")
    return {**files, "chat_template.jinja": template, "config.json": json.dumps(dict(base.config), indent=2) + "\n"}
