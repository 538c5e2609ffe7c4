"""How long acting takes, stage by stage: requests that are always the same, in a place that is thrown away.

Nobody is waited for: somebody says yes to every question at once, and answers none. Files, notes and the calendar are
new for each request, so that nothing of this machine is touched, and each request finds what the one before it found.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.runtimes.act import manifest, perception
from edge.runtimes.act.hands import Hands
from edge.runtimes.act.intent import Reader
from edge.runtimes.act.manifest import Manifest
from edge.runtimes.act.memory import Memory
from edge.runtimes.act.mind import Mind
from edge.runtimes.act.policy import Policy
from edge.runtimes.model import Model

STAGES = ("perception", "recall", "intent", "plan", "execution")


@dataclass(frozen=True)
class Wanted:
    """A request, and the words of a file that comes with it."""

    request: str
    letter: str = ""


REQUESTS = (
    Wanted("read todo.txt"),
    Wanted("list my notes"),
    Wanted("write hello to greeting.txt"),
    Wanted("delete draft.txt"),
    Wanted("what time is it"),
    Wanted("read todo.txt and append it to log.txt"),
    Wanted("delete draft.txt and list the files"),
    Wanted("append it to log.txt", letter="The parcel comes on Friday.\n"),
    Wanted("sing me a song about the sea"),
)


def run(model: Model, requests: Sequence[Wanted] = REQUESTS) -> dict[str, Any]:
    """A row for each request, in milliseconds: each of `STAGES`, and `total_ms`; how many `actions` were carried out,
    how many `tokens` were written, whether all was done. The first request is made once more before that, and not
    counted."""
    began = time.perf_counter()
    reader = Reader(model, _tools(Path("/nonexistent")).functions())
    ready_s = time.perf_counter() - began
    rows = [_carried_out(model, reader, wanted) for wanted in (requests[0], *requests)]
    return {"ready_s": ready_s, "requests": rows[1:]}


def _tools(folder: Path) -> Manifest:
    sets = {
        "files": {"folder": str(folder / "files")},
        "notes": {"database": str(folder / "notes.db")},
        "calendar": {"database": str(folder / "calendar.db")},
        "system": {},
    }
    return manifest.parse({"toolsets": sets}, folder=folder, where="the tools that are measured")


def _carried_out(model: Model, reader: Reader, wanted: Wanted) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edge-act-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "files/todo.txt").write_text("buy milk\n")
        (folder / "files/draft.txt").write_text("Dear all,\n")
        (folder / "letter.txt").write_text(wanted.letter)
        memory = Memory(folder / "memory.db")
        try:
            with Hands(_tools(folder), Policy(), ask=lambda question: True, state=folder / "state") as hands:
                mind = Mind(model, hands, memory=memory, reader=reader)
                began = time.perf_counter()
                given = [perception.of_file(folder / "letter.txt")] if wanted.letter else []
                perceived_ms = (time.perf_counter() - began) * 1000
                report = mind.act(wanted.request, given)
                total_ms = (time.perf_counter() - began) * 1000
        finally:
            memory.close()
    return {
        "request": wanted.request,
        "stages_ms": {"perception": perceived_ms, **{name: report.stages_ms.get(name, 0.0) for name in STAGES[1:]}},
        "total_ms": total_ms,
        "actions": sum(done.status == "done" for done in report.steps),
        "tokens": report.tokens,
        "whole": report.whole,
    }
