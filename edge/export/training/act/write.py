"""Write the corpus of tool calls: python -m edge.export.training.act.write

`tool_calls.jsonl` are the cases of the gate, `tool_calibration.jsonl` traces of the training split to
calibrate with. No tool of the one's unseen cases, and no phrase, stands in the other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edge.export.training.act import requests
from edge.export.training.act.requests import Case

_CORPUS = Path(__file__).parents[2] / "corpus"
_TRACES = 64


def main() -> None:
    """Both files, always with the same bytes."""
    write(_CORPUS / "tool_calls.jsonl", (row(case) for case in requests.judged()))
    rng = random.Random("calibration")
    packs = (requests.pack(rng, 1) for _ in range(_TRACES))
    write(
        _CORPUS / "tool_calibration.jsonl",
        ({"tools": list(p.tools), "messages": list(p.conversations[0])} for p in packs),
    )


def row(case: Case) -> dict[str, Any]:
    """A case as a line of the gate's file."""
    made = [c["function"] for c in case.answer.get("tool_calls", ())]
    return {
        "split": case.split,
        "tools": list(case.tools),
        "messages": list(case.messages),
        "calls": made,
        "text": case.answer["content"],
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
