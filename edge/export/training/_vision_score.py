"""The score of smollm2-vision as it is assembled, beside what can be had without looking at the picture.

Three blind answerers: the same model before a grey picture, before noise, and the best guess that anyone who
knows the questions by heart but sees nothing can make, which is the most frequent answer to each question.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.export import corpus
from edge.export.corpus.picture_questions import questions
from edge.export.corpus.pictures import Picture, picture
from edge.export.training._vision_speak import IGNORED, chat_row, hidden_states, taught

N_PICTURES = 200
_N_BLIND = 24
_N_GUESSED_FROM = 20_000


def score(model: Any, tokenizer: Any, base: Any) -> dict[str, Any]:
    """Everything that the model card says, for the held-out pictures 0..199; `base` is SmolLM2 as it was."""
    import torch

    def grey(scenes: list[Picture]) -> Any:
        return torch.zeros(len(scenes), 3, 96, 96)

    def noise(scenes: list[Picture]) -> Any:
        return torch.rand(len(scenes), 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1

    return {
        "task": "all questions of edge.export.corpus.picture_questions about held-out pictures, whole answer right",
        "pictures": f"held out, seeds 0 to {N_PICTURES - 1}",
        "score": _told(*taught(model, tokenizer, range(N_PICTURES))),
        "blind": {
            "grey picture": _told(*taught(model, tokenizer, range(_N_BLIND), values=grey)),
            "noise": _told(*taught(model, tokenizer, range(_N_BLIND), values=noise)),
            "best guess": _told(*best_guess(range(N_PICTURES))),
        },
        "chat": {
            "measure": "cross-entropy per token of SmolLM2's own answers in corpus/held_out.jsonl, no system message",
            "smollm2-vision": round(chat_loss(model, tokenizer), 4),
            "smollm2": round(chat_loss(base, tokenizer), 4),
        },
    }


def best_guess(seeds: Sequence[int]) -> tuple[Counter[str], Counter[str]]:
    """The most frequent answer in 20,000 training pictures to the same question, or to its kind when it is new."""
    by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for seed in range(_N_GUESSED_FROM):
        for q in questions(picture(seed), random.Random(seed)):
            by_text[q.text][q.answers[0]] += 1
            by_text[q.kind][q.answers[0]] += 1
    right, asked = Counter[str](), Counter[str]()
    for seed in seeds:
        for q in questions(picture(seed, held_out=True), random.Random(f"held out {seed}")):
            guess = (by_text.get(q.text) or by_text[q.kind]).most_common(1)[0][0]
            asked[q.kind] += 1
            right[q.kind] += q.is_right(guess)
    return right, asked


def chat_loss(model: Any, tokenizer: Any, n: int = 16) -> float:
    """Mean over the tokens of `n` held-out answers, in nats."""
    import torch
    import torch.nn.functional as F

    lines = Path(corpus.__file__).with_name("held_out.jsonl").read_text(encoding="utf-8").splitlines()[:n]
    total, count = 0.0, 0
    for line in lines:
        row = chat_row(tokenizer, json.loads(line)["messages"], 160)
        labels = torch.tensor(row.labels)
        with torch.no_grad():
            hidden = hidden_states(model, [row], None)[0][labels != IGNORED]
            logits = hidden.float() @ model.get_input_embeddings().weight.float().T
        total += F.cross_entropy(logits, labels[labels != IGNORED], reduction="sum").item()
        count += len(logits)
    assert math.isfinite(total)
    return total / count


def _told(right: Counter[str], asked: Counter[str]) -> dict[str, Any]:
    return {
        "right": right.total(),
        "asked": asked.total(),
        "share": round(right.total() / asked.total(), 4),
        "by_kind": {kind: f"{right[kind]}/{n}" for kind, n in asked.items()},
    }
