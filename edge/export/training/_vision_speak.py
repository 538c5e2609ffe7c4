"""Stage two of smollm2-vision: the decoder learns to answer from the words that the tower writes.

Adapters of low rank on the attention of a frozen SmolLM2; the tower stays as stage one left it. Behind one
picture stand several questions, each of which sees the picture and itself only, so the picture is read once.
One sequence of every other batch is plain conversation in SmolLM2's own words (`corpus/calibration.jsonl`), so that it
goes on to chat without a picture.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export import corpus
from edge.export.corpus.picture_questions import Question, questions
from edge.export.corpus.pictures import Picture, picture
from edge.export.training import lora
from edge.export.training._vision_see import look, pixels
from edge.export.zoo.smollm2_vision import IMAGE_TOKEN_ID, N_IMAGE_TOKENS

SEED = 20261125
RANK = 8
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj")
IGNORED = -100
_SHARES = {"lora_A": 1.0, "lora_B": 1.0, "weight": 0.2}  # of the rate; `weight` are the norms' gains


@dataclass(frozen=True)
class Row:
    """One sequence: ids, their positions, the block each belongs to (0 is seen by all), what each shall say next."""

    ids: list[int]
    positions: list[int]
    blocks: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Phase:
    """Steps, the rate and over how many steps a cosine takes it down, and whether the batches are the hard ones."""

    steps: int
    rate: float
    cosine: int
    hard: bool


PHASES = (Phase(200, 1e-3, 250, False), Phase(110, 7e-4, 110, True))
STEPS = sum(phase.steps for phase in PHASES)
BATCH, EACH = 6, 6  # pictures in a step, questions about each


def plan(step: int) -> tuple[Phase, float]:
    """The phase of this step, the last one for steps beyond, and its rate."""
    for phase in PHASES:
        if step < phase.steps or phase is PHASES[-1]:
            break
        step -= phase.steps
    warm = min(1.0, (step + 1) / 20)
    return phase, phase.rate * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * min(step / phase.cosine, 1))))


def batch(step: int, rng: random.Random, *, hard: bool) -> list[tuple[Picture, list[Question], bool]]:
    """The pictures of this step, what is asked of each, and whether that is one conversation.

    Hard batches have three things in every other picture, and always ask to describe and to count, what is
    somewhere, and twice whether something is there: what is learned last.
    """
    made = []
    for i in range(BATCH):
        seeds = map(picture, itertools.count(step * BATCH + i, 10**7))
        scene = next(s for s in seeds if len(s.things) == 3 or not hard or i % 2)
        asked = list(questions(scene, rng))
        if hard:
            always = [q for q in asked if q.kind in ("describe", "count", "what", "exists")]
            again = [q for q in questions(scene, rng) if q.kind == "exists"]
            asked = [*always, *again, rng.choice([q for q in asked if q not in always])]
        made.append((scene, rng.sample(asked, min(EACH, len(asked))), rng.random() < 0.25))
    return made


def picture_row(tokenizer: Any, asked: Sequence[Question], *, in_turn: bool) -> Row:
    """A picture and its questions; `in_turn` makes them one conversation, else each stands alone behind the picture."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    ids = [*encode("<|im_start|>user\n"), *[IMAGE_TOKEN_ID] * N_IMAGE_TOKENS]
    row = Row(ids, list(range(len(ids))), [0] * len(ids), [IGNORED] * len(ids))
    start = len(ids)
    for n, question in enumerate(asked, 1):
        prompt = encode(f"{question.text}<|im_end|>\n<|im_start|>assistant\n")
        if in_turn and n > 1:
            prompt = encode("\n<|im_start|>user\n") + prompt
        answer = encode(f"{question.answers[0]}<|im_end|>")
        row.ids.extend(prompt + answer)
        row.positions.extend(range(start, start + len(prompt) + len(answer)))
        row.blocks.extend([0 if in_turn else n] * (len(prompt) + len(answer)))
        row.labels.extend([IGNORED] * (len(prompt) - 1) + answer + [IGNORED])
        start += len(prompt) + len(answer) if in_turn else 0
    return row


def chat_row(tokenizer: Any, messages: Sequence[dict[str, str]], limit: int) -> Row:
    """A conversation without a picture, cut at `limit` tokens; the assistant's words are to be said."""
    ids: list[int] = []
    said: list[bool] = []
    for message in messages:
        own = message["role"] == "assistant"
        for text, counts in (
            (f"<|im_start|>{message['role']}\n", False),
            (f"{message['content']}<|im_end|>", own),
            ("\n", False),
        ):
            part = tokenizer.encode(text, add_special_tokens=False)
            ids += part
            said += [counts] * len(part)
    ids, said = ids[:limit], said[:limit]
    labels = [i if s else IGNORED for i, s in zip(ids[1:], said[1:], strict=True)] + [IGNORED]
    return Row(ids, list(range(len(ids))), [0] * len(ids), labels)


def hidden_states(model: Any, rows: Sequence[Row], seen: Any | None) -> Any:
    """The decoder's last hidden states (n, length, hidden) in bfloat16; `seen` are the pictures' image tokens."""
    import torch

    length = max(len(r.ids) for r in rows)

    def table(field: str, fill: int) -> Any:
        return torch.tensor([getattr(r, field) + [fill] * (length - len(r.ids)) for r in rows])

    ids, blocks = table("ids", 2), table("blocks", -1)
    is_image = ids == IMAGE_TOKEN_ID
    embeds = model.get_input_embeddings()(ids.masked_fill(is_image, 2))
    if seen is not None:
        embeds = embeds.masked_scatter(is_image[..., None], seen.to(embeds.dtype))
    same = (blocks[:, :, None] == blocks[:, None, :]) | (blocks[:, None, :] == 0)
    may_see = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(may_see.shape, dtype=embeds.dtype).masked_fill(~may_see, torch.finfo(embeds.dtype).min)
    decoder = getattr(model.model, "language_model", model.model)
    return decoder(
        inputs_embeds=embeds, attention_mask=mask[:, None], position_ids=table("positions", 0), use_cache=False
    ).last_hidden_state


def train(model: Any, tokenizer: Any, *, steps: int, state: Path, log: Any) -> None:
    """Train the adapters in place; goes on from `state` when it is there."""
    import torch
    import torch.nn.functional as F

    model.requires_grad_(False)
    trained = lora.attach(model.model.language_model.to(torch.bfloat16), ADAPTED, RANK, SEED)
    groups = [
        {"params": [p for n, p in trained.items() if n.rpartition(".")[2] == part], "share": share}
        for part, share in _SHARES.items()
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98))
    first = 0
    if state.is_file():
        saved = torch.load(state)
        for name, value in saved["trained"].items():
            trained[name].data.copy_(value)
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    chats = [
        json.loads(line)["messages"]
        for line in Path(corpus.__file__).with_name("calibration.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    started, mean = time.process_time(), 0.0
    for step in range(first, steps):
        phase, rate = plan(step)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * rate
        rng = random.Random(f"speak {step}")
        made = batch(step, rng, hard=phase.hard)
        scenes = [scene for scene, _, _ in made]
        rows = [picture_row(tokenizer, asked, in_turn=in_turn) for _, asked, in_turn in made]
        if step % 2:
            rows.append(chat_row(tokenizer, rng.choice(chats), max(len(r.ids) for r in rows)))
        with torch.no_grad():
            seen = look(model, pixels(scenes))
        hidden = hidden_states(model, rows, seen)
        labels = torch.tensor([r.labels + [IGNORED] * (hidden.shape[1] - len(r.labels)) for r in rows])
        counted = labels != IGNORED
        logits = F.linear(hidden[counted], model.get_input_embeddings().weight).float()
        loss = F.cross_entropy(logits, labels[counted])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
        mean = loss.item() if step == first else 0.9 * mean + 0.1 * loss.item()
        if (step + 1) % 10 == 0:
            log(f"speak {step + 1}/{steps} loss {mean:.4f} cpu {time.process_time() - started:.0f} s")
        if (step + 1) % 50 == 0 or step + 1 == steps:
            kept = {n: p.detach().clone() for n, p in trained.items()}
            torch.save({"trained": kept, "optimizer": optimizer.state_dict(), "step": step + 1}, state)
            right, of = taught(model, tokenizer, range(10**6, 10**6 + 16))
            log(f"speak {step + 1} held out {right.total()}/{of.total()} {dict(right)} of {dict(of)}")


def taught(
    model: Any, tokenizer: Any, seeds: Sequence[int], *, see: Any = look, values: Any = pixels
) -> tuple[Counter[str], Counter[str]]:
    """Of all questions about these held-out pictures, those answered in the taught words and no others; by kind.

    The taught answer is given, and each token compared with the likeliest: it is what greedy decoding would say.
    `see` and `values` can put something else in place of the picture.
    """
    import torch

    right, asked_of = Counter[str](), Counter[str]()
    for at in range(0, len(seeds), 8):
        scenes = [picture(s, held_out=True) for s in seeds[at : at + 8]]
        asked = [questions(s, random.Random(f"held out {s.seed}")) for s in scenes]
        rows = [picture_row(tokenizer, a, in_turn=False) for a in asked]
        with torch.no_grad():
            hidden = hidden_states(model, rows, see(model, values(scenes)))
        for row, qs, states in zip(rows, asked, hidden, strict=True):
            spots = [i for i, label in enumerate(row.labels) if label != IGNORED]
            said = (states[spots] @ model.get_input_embeddings().weight.T).argmax(-1).tolist()
            hits: dict[int, list[bool]] = {row.blocks[i]: [] for i in spots}
            for i, token in zip(spots, said, strict=True):
                hits[row.blocks[i]].append(token == row.labels[i])
            for number, question in enumerate(qs, 1):
                asked_of[question.kind] += 1
                right[question.kind] += all(hits[number])
    return right, asked_of
