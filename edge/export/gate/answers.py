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

from edge.export import cache
from edge.export.checkpoint import Checkpoint
from edge.export.gate.logits import NEAR_TIE_NATS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

MAX_TOKENS = 24
_BATCH = 16  # prompts at once: more are no faster on a CPU and take more memory
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
            f"Question: {text}\nAnswer:" if template is None else template.render([{"role": "user", "content": text}])
        )
        out.append(Question(text, tuple(tokenizer.encode(asked)), tuple(row["answers"])))
    return tuple(out)


@dataclass(frozen=True)
class Reply:
    """The source's greedy ids, and by how many nats each was preferred to the next best."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]


def source_replies(
    checkpoint: Checkpoint, asked: Sequence[Question], stop_ids: Sequence[int], model: Callable[[], Any]
) -> tuple[Reply, ...]:
    """Greedy replies of the source to each question, kept in the cache.

    `model` loads the reference; it is called only when the replies are not there yet.
    """
    key = cache.key(
        checkpoint=checkpoint.id, prompts=[q.prompt for q in asked], stop=sorted(stop_ids), code=cache.code_of(__name__)
    )
    folder = cache.find("replies", key)
    if folder is None:
        with cache.building("replies", key) as work:
            made = [r for i in range(0, len(asked), _BATCH) for r in _greedy(model(), asked[i : i + _BATCH], stop_ids)]
            (work / "replies.json").write_text(json.dumps([vars(r) for r in made]))
        folder = cache.root() / "replies" / key
    rows = json.loads((folder / "replies.json").read_text())
    return tuple(Reply(tuple(row["ids"]), tuple(row["margins"])) for row in rows)


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
                kind = near_ties if _parted_at_near_tie(wanted, found) else lost
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


def _parted_at_near_tie(wanted: Reply, found: Sequence[int]) -> bool:
    at = next((i for i, (a, b) in enumerate(zip(wanted.ids, found, strict=False)) if a != b), None)
    return at is not None and wanted.margins[at] < NEAR_TIE_NATS


def _greedy(model: Any, asked: Sequence[Question], stop_ids: Sequence[int]) -> list[Reply]:
    """Greedy decoding of the reference for several prompts at once, padded on the left."""
    import torch

    longest = max(len(q.prompt) for q in asked)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
    ids = torch.zeros(len(asked), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, question in enumerate(asked):
        ids[row, longest - len(question.prompt) :] = torch.tensor(question.prompt)
        mask[row, longest - len(question.prompt) :] = 1
    chosen, margins = [], []
    past = None
    running = torch.ones(len(asked), dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(MAX_TOKENS):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = model(
                ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            best = out.logits[:, -1].log_softmax(-1).topk(2)
            token = best.indices[:, 0]
            chosen.append(token)
            margins.append(best.values[:, 0] - best.values[:, 1])
            running &= ~torch.isin(token, stops)
            if not running.any():
                break
            past, ids = out.past_key_values, token[:, None]
            mask = torch.cat([mask, torch.ones(len(asked), 1, dtype=torch.long)], 1)
    rows = zip(torch.stack(chosen, 1).tolist(), torch.stack(margins, 1).tolist(), strict=True)
    replies = []
    for row, margin in rows:
        end = next((i for i, token in enumerate(row) if token in stop_ids), len(row))
        replies.append(Reply(tuple(row[:end]), tuple(round(m, 4) for m in margin[: end + 1])))
    return replies
