"""Short questions: what the source answers rightly, the export must still answer.

Averages over positions forgive a model that has lost its facts. A 4-bit file may be within
every limit of divergence and still not know the capital of France.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export.gate.replies import Reply, parted_at_near_tie
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.sight import fitted
from edge.runtimes.tokenizer import Tokenizer

MAX_TOKENS = 24
_FEWEST = 8  # a source that answers fewer questions rightly is not judged by them
_QUESTIONS = Path(__file__).parents[1] / "corpus" / "questions.jsonl"


@dataclass(frozen=True)
class Question:
    """A question, its prompt as ids, and the words of which one must be in the answer."""

    text: str
    prompt: tuple[int, ...]
    answers: tuple[str, ...]

    def accepts(self, reply: str) -> bool:
        return any(re.search(rf"(?<!\w){re.escape(a)}(?!\w)", reply, re.IGNORECASE) for a in self.answers)


def questions(tokenizer: Tokenizer, template: ChatTemplate | None) -> tuple[Question, ...]:
    """The questions that ship with edge, in the model's own template (or plainly, without one)."""
    rows = [json.loads(line) for line in _QUESTIONS.read_text(encoding="utf-8").splitlines()]
    out = []
    for row in rows:
        text = str(row["question"])
        asked = (
            f"Question: {text}\nAnswer:"
            if template is None
            else template.render(fitted(template, [{"role": "user", "content": text}]))
        )
        out.append(Question(text, tuple(tokenizer.encode(asked)), tuple(row["answers"])))
    return tuple(out)


def compare(
    asked: Sequence[Question],
    source: Sequence[Reply],
    export: Iterator[Sequence[int]],
    tokenizer: Tokenizer,
    advance: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Which right answers were kept, and which were lost and for what.

    A right answer that was lost where the source itself was undecided (its first choice less
    than 0.1 nats ahead of the next, at the token where the replies part) is a near-tie: listed,
    and not counted, because a rounding error in the source would have lost it too.
    """
    right = kept = same = 0
    lost: list[dict[str, str]] = []
    near_ties: list[dict[str, str]] = []
    for done, (question, wanted, found) in enumerate(zip(asked, source, export, strict=True), 1):
        reply = tokenizer.decode(found, skip_special=True)
        same += wanted.ids == tuple(found)
        if question.accepts(tokenizer.decode(wanted.ids, skip_special=True)):
            right += 1
            if question.accepts(reply):
                kept += 1
            else:
                kind = near_ties if parted_at_near_tie(wanted, found) else lost
                kind.append({"question": question.text, "reply": reply.strip()[:120]})
        advance(done)
    judged = right - len(near_ties)
    return {
        "questions": len(asked),
        "source_right": right,
        "kept": kept,
        "share_kept": kept / judged if judged >= _FEWEST else None,
        "identical_replies": same,
        "lost": lost,
        "near_ties": near_ties,
    }
