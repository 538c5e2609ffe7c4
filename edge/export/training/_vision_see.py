"""Stage one of smollm2-vision: the tower learns to write what it sees in words of the language model.

No language model is run. Each third of the picture, both ways, covers two by two patches; their four
projected tokens shall be the embeddings of four words:

    red  circle  |  ...
    top  left    |  ...

and those of an empty third the embedding of a full stop. So the frozen decoder reads the picture as text.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.export.corpus.pictures import COLOURS, PLACES, THINGS, Picture, draw, picture

SIDE = 6  # patches


@dataclass(frozen=True)
class Phase:
    """Steps, the rate and over how many steps a cosine takes it down, the share of pictures in any colour at all,
    and what a thing's word weighs in the loss beside that of a colour or a place."""

    steps: int
    rate: float
    cosine: int
    any_colour: float
    thing: float


PHASES = (Phase(3000, 1.2e-3, 4000, 0.0, 1.0), Phase(3000, 8e-4, 3000, 0.5, 2.0))
STEPS = sum(phase.steps for phase in PHASES)
BATCH = 32
_ANY = -100  # a word that may be anything
EMPTY = "."
_PLACE_WORDS = {place: (place.split() * 2)[:2] for place in PLACES}
WORDS = (EMPTY, *COLOURS, *THINGS, "top", "bottom", "left", "right", "middle")


def words_of(scene: Picture) -> list[str]:
    """The word of each patch, row by row."""
    words = [EMPTY] * SIDE * SIDE
    for thing in scene.things:
        row, column = (2 * n for n in divmod(PLACES.index(thing.place), 3))
        first, second = _PLACE_WORDS[thing.place]
        words[row * SIDE + column : row * SIDE + column + 2] = thing.colour, thing.name
        words[(row + 1) * SIDE + column : (row + 1) * SIDE + column + 2] = first, second
    return words


def word_ids(tokenizer: Any) -> list[int]:
    """The token of each of WORDS, as it stands inside a sentence; digits and the stop have no space before them."""
    ids = [tokenizer.encode(w if not w.isalpha() else f" {w}", add_special_tokens=False) for w in WORDS]
    assert all(len(i) == 1 for i in ids), ids
    return [i[0] for i in ids]


def pixels(scenes: list[Picture]) -> Any:
    """float32 (n, 3, 96, 96) in -1..1, as the image processor makes it."""
    import numpy as np
    import torch

    images = np.stack([np.asarray(draw(s)) for s in scenes])
    return (torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1).contiguous()


def plan(step: int) -> tuple[Phase, float]:
    """The phase of this step, the last one for steps beyond, and its rate."""
    for phase in PHASES:
        if step < phase.steps or phase is PHASES[-1]:
            break
        step -= phase.steps
    warm = min(1.0, (step + 1) / 200)
    return phase, phase.rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * min(step / phase.cosine, 1))))


def train(model: Any, tokenizer: Any, *, steps: int, state: Path, log: Any) -> None:
    """Train `model`'s tower and projector in place; goes on from `state` when it is there."""
    import torch
    import torch.nn.functional as F

    words = model.get_input_embeddings().weight[word_ids(tokenizer)].detach().float()  # (n_words, hidden)
    trained = parts(model).train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    first = 0
    if state.is_file():
        saved = torch.load(state)
        trained.load_state_dict(saved["parts"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    started, wrong = time.process_time(), 0.0
    for step in range(first, steps):
        phase, rate = plan(step)
        weight = torch.tensor([0.15 if w == EMPTY else phase.thing if w in THINGS else 1.0 for w in WORDS])
        for group in optimizer.param_groups:
            group["lr"] = rate
        n_any = round(phase.any_colour * BATCH)
        scenes = [picture(step * BATCH + i, any_colour=i < n_any) for i in range(BATCH)]
        target = torch.tensor([[WORDS.index(w) for w in words_of(s)] for s in scenes])
        free = (target >= 1) & (target <= len(COLOURS)) & (torch.arange(BATCH) < n_any)[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            seen = look(model, pixels(scenes))
        seen = seen.float()
        loss = F.cross_entropy(
            -nearness(seen, words).flatten(0, 1), target.masked_fill(free, _ANY).flatten(), weight=weight
        )
        loss = loss + 0.02 * (seen - words[target]).square().sum(-1)[~free].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        wrong = loss.item() if step == first else 0.98 * wrong + 0.02 * loss.item()
        if (step + 1) % 200 == 0:
            log(f"see {step + 1}/{steps} loss {wrong:.4f} cpu {time.process_time() - started:.0f} s")
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            torch.save({"parts": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state)
            known, unseen = (read_off(model, words, held_out=h) for h in (False, True))
            log(f"see {step + 1} {known} held out {unseen}")
            trained.train()


def parts(model: Any) -> Any:
    """What this stage trains: the tower and the projector, as one module."""
    import torch

    return torch.nn.ModuleList([model.model.vision_tower, model.model.multi_modal_projector])


def look(model: Any, values: Any) -> Any:
    """Projected image tokens (n, 36, hidden): the last hidden state, before the tower's last norm."""
    hidden = model.model.vision_tower(values, output_hidden_states=True).hidden_states[-1]
    return model.model.multi_modal_projector(hidden)


def nearness(seen: Any, words: Any) -> Any:
    """Squared distance to each word over a temperature, (n, 36, n_words)."""
    return (seen.square().sum(-1, keepdim=True) - 2 * seen @ words.T + words.square().sum(-1)) / 2.0


def read_off(model: Any, words: Any, *, held_out: bool, n: int = 256) -> str:
    """Which words the tokens are nearest to, for pictures beyond those trained on: things and whole pictures right."""
    import torch

    scenes = [picture(10**9 + i, held_out=held_out) for i in range(n)]
    with torch.no_grad():
        found = nearness(look(model.eval(), pixels(scenes)), words).argmin(-1).tolist()
    pairs = [([WORDS[i] for i in f], words_of(s)) for f, s in zip(found, scenes, strict=True)]
    n_words = sum(w != EMPTY for _, wanted in pairs for w in wanted)
    right = sum(w != EMPTY and g == w for got, wanted in pairs for g, w in zip(got, wanted, strict=True))
    return f"words {right / n_words:.4f} pictures {sum(a == b for a, b in pairs) / n:.4f}"
