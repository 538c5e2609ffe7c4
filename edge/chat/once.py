"""One question, one answer, for pipes and programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.chat.screen import printable
from edge.chat.terminal import Renderer, turns
from edge.runtimes.conversation import Conversation
from edge.runtimes.model import Piece
from edge.runtimes.session import Sampling


def answer(
    conversation: Conversation, prompt: str, sampling: Sampling, renderer: Renderer, images: Sequence[Path] = ()
) -> None:
    """Stream the answer alone to stdout; what a person should know goes to a stderr that is a terminal."""
    for piece in conversation.say(prompt, sampling, images=images):
        renderer.push(printable(piece.text))
    renderer.flush()
    stats = conversation.model.stats
    if not sys.stderr.isatty():
        return
    if conversation.dropped:
        sys.stderr.write(f"edge: the context is full: dropped {turns(conversation.dropped)}, oldest first\n")
    if stats and stats.stopped_by in ("length", "context"):
        reason = "--max-tokens" if stats.stopped_by == "length" else "the context is full"
        sys.stderr.write(f"edge: the answer was cut: {reason}\n")


def answer_json(
    conversation: Conversation, prompt: str, sampling: Sampling, *, stream: bool, images: Sequence[Path] = ()
) -> None:
    """One JSON object; with `stream` one line for each piece before it.

    Times are milliseconds after the question was asked. The answer is exact: nothing in it can
    reach a terminal unescaped.
    """
    began_ns = time.perf_counter_ns()
    pieces: list[Piece] = []
    for piece in conversation.say(prompt, sampling, images=images):
        pieces.append(piece)
        if stream:
            at_ms = (piece.time_ns - began_ns) / 1e6
            _line({"text": piece.text, "token": piece.token_id, "time_ms": round(at_ms, 3)})
    record = _record(conversation, pieces, sampling, began_ns)
    if stream:
        _line(record)
    else:
        sys.stdout.write(json.dumps(record, indent=2) + "\n")


def _record(conversation: Conversation, pieces: list[Piece], sampling: Sampling, began_ns: int) -> dict[str, Any]:
    bundle, stats = conversation.model.bundle, conversation.model.stats
    tokens = [p for p in pieces if p.token_id is not None]
    return {
        "answer": "".join(p.text for p in pieces),
        "tokens": [p.token_id for p in tokens],
        "times_ms": [round((p.time_ns - began_ns) / 1e6, 3) for p in tokens],
        "stats": None if stats is None else asdict(stats),
        "dropped_turns": conversation.dropped,
        "sampling": asdict(sampling),
        "bundle": {
            "name": bundle.name,
            "id": bundle.id,
            "format": bundle.format,
            "quantization": bundle.quantization,
            "proven": bundle.proven,
        },
    }


def _line(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()
