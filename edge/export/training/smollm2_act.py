"""Train `smollm2-act` from `smollm2`: python -m edge.export.training.smollm2_act WORK

Writes `adapter.safetensors` into the folder WORK, with a checkpoint beside it: the same command goes
on where it was stopped. `log.jsonl` has the loss of every step and the scores of held-out cases.
On one core with AVX512-BF16 a step takes about a second.

Adapters stand on every linear layer, and the norms' gains are freed. The source's weights lie on a 4-bit grid
already (it is dequantized Q4_1), and 4-bit exports round the MLPs to one again: in a part of the steps (`rounded`)
they are rounded while training, so that what is learned does not rest on their last bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.export.reference import load_model
from edge.export.source import open_source
from edge.export.training import lora, packed_attention
from edge.export.training.act import requests
from edge.export.training.act.score import answered, exact, of, scores
from edge.export.training.act.tokens import Packed, packed
from edge.export.training.act.values import kept_back
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

ADAPTER = Path(__file__).parents[1] / "zoo" / "adapters" / "smollm2-act"
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CHATS = Path(__file__).parents[1] / "corpus" / "calibration.jsonl"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, together with the data recipe in `act`."""

    seed: int = 0
    steps: int = 2250
    tokens: int = 640  # of one pack, which is one step
    frozen: tuple[tuple[int, int], ...] = ((0, 0), (600, 6))  # from this step on, so many of the lowest layers rest
    common: tuple[tuple[int, int], ...] = ((0, 8192),)  # how many of the tokens are chosen between
    chat: float = 0.04  # the share of steps without tools
    rank: int = 32
    rate: float = 5e-4
    gain_rate: float = 1.5e-4
    warm_up: int = 60
    decay: float = 0.85  # the share of steps in which the rate falls to nothing, fast at first
    begun: str = ""  # sha256 of the adapter it goes on from
    rounded: float = 0.3  # how often the MLPs are rounded to 4 bits
    clip: float = 1.0

    def now(self, plan: tuple[tuple[int, int], ...], step: int) -> int:
        """What a plan says for this step."""
        return [n for start, n in plan if start <= step][-1]

    def at(self, step: int) -> float:
        """The learning rate's share in this step."""
        falling = self.steps * (1 - self.decay)
        if step < falling:
            return min(1.0, (step + 1) / self.warm_up)
        return max(0.0, (self.steps - step) / (self.steps - falling)) ** 2


class Student:
    """The model with its adapters, and the batches it learns from."""

    def __init__(self, recipe: Recipe, before: Path | None = None) -> None:
        import torch
        from safetensors.torch import load_file

        self.recipe = recipe
        source = open_source("smollm2")
        self.tokenizer = Tokenizer.load(source.folder)
        self.template = ChatTemplate((ADAPTER / "chat_template.jinja").read_text(encoding="utf-8"))
        self.model = load_model(source).to(torch.bfloat16)
        self._attention = packed_attention.install(self.model)
        self.trained = lora.attach(self.model, _TARGETS, recipe.rank, recipe.seed)
        if before is not None:
            lora.resume(self.trained, load_file(before))
        self._words = words(self.tokenizer)
        mlp = [m for n, m in self.model.named_modules() if isinstance(m, torch.nn.Linear) and ".mlp." in n]
        lines = _CHATS.read_text(encoding="utf-8").splitlines()
        self._chats = [tuple(json.loads(line)["messages"]) for line in lines]
        self._mlp = [(m, m.weight.data, four_bits(m.weight.data)) for m in mlp]

    def freeze(self, layers: int) -> None:
        """Let the lowest layers rest: what is not trained is not traced back through, a sixth of a step's time."""
        for name, parameter in self.trained.items():
            number = name.split(".")[2]
            parameter.requires_grad_(not number.isdigit() or int(number) >= layers)

    def round_mlps(self, rounded: bool) -> None:
        for module, whole, coarse in self._mlp:
            module.weight.data = coarse if rounded else whole

    def acting(self, batch: Packed, common: int) -> tuple[torch.Tensor, int, int]:
        """The loss of a pack, how many of its conversations would be answered exactly, and of how many."""
        import torch

        loss, chosen, where = answered(self.model, self._attention, batch, common=common)
        talk, weight = (torch.from_numpy(x)[where] for x in (batch.talk, batch.weights))
        n = int(talk.max()) + 1
        right = sum(bool(chosen[talk == i].all()) for i in range(n))
        return (loss * weight).sum() / weight.sum(), right, n

    def chatting(self, batch: Packed) -> torch.Tensor:
        """How far the choices without tools have gone from those of the model it began as."""
        import torch

        now, _ = scores(self.model, self._attention, batch)
        self.round_mlps(False)
        with torch.no_grad(), lora.resting():
            before, _ = scores(self.model, self._attention, batch)
        kept = torch.nn.functional.kl_div(
            now.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"
        )
        return kept

    def pack(self, rng: random.Random) -> Packed:
        return packed(requests.pack(rng, 12, self._words), self.template, self.tokenizer, self.recipe.tokens)

    def chat(self, rng: random.Random) -> Packed:
        """Conversations of the calibration corpus, with no tool to call."""
        return packed(requests.Pack((), tuple(rng.sample(self._chats, 3))), self.template, self.tokenizer, 400)

    def score(self, split: str, n: int) -> float:
        """The share of `n` held-out cases that would be answered exactly."""
        return exact(self.model, self._attention, self.template, self.tokenizer, split, n) / n


def words(tokenizer: Tokenizer) -> list[str]:
    """Words that are one token behind a space, in small letters, without those kept back for held-out cases."""
    kept = kept_back()
    texts = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    return sorted({t[1:] for t in texts if re.fullmatch(r" [a-z]{3,14}", t)} - kept)


def four_bits(weight: torch.Tensor) -> torch.Tensor:
    """`weight` rounded to 15 levels around zero for every 32 of a row."""
    blocks = weight.float().reshape(weight.shape[0], -1, 32)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 7
    return (blocks.div(scale).round() * scale).reshape(weight.shape).to(weight.dtype)


def train(
    work: Path, recipe: Recipe, *, save_every: int, score_every: int, cases: int, before: Path | None = None
) -> Path:
    """Run the recipe to its end and write the adapter, float16; `before` is the adapter it goes on from."""
    import torch

    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    if before is not None:
        recipe = replace(recipe, begun=hashlib.sha256(before.read_bytes()).hexdigest())
    student = Student(recipe, before)
    gains = [p for p in student.trained.values() if p.ndim == 1]
    matrices = [p for p in student.trained.values() if p.ndim == 2]
    groups = [{"params": matrices, "top": recipe.rate}, {"params": gains, "top": recipe.gain_rate}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    step = _restore(work, student, optimizer)
    log = _Log(work / "log.jsonl")
    while step < recipe.steps:
        began = time.monotonic()
        rng = random.Random(f"{recipe.seed} {step}")
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * recipe.at(step)
        student.freeze(recipe.now(recipe.frozen, step))
        student.round_mlps(rng.random() < recipe.rounded)
        if rng.random() < recipe.chat:
            batch, right, conversations = student.chat(rng), 0, 0
            loss = student.chatting(batch)
        else:
            batch = student.pack(rng)
            loss, right, conversations = student.acting(batch, recipe.now(recipe.common, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gains + matrices, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        log(step=step, loss=round(float(loss.detach()), 4), right=right, conversations=conversations,
            tokens=len(batch.ids), seconds=round(time.monotonic() - began, 2))  # fmt: skip
        if step % save_every == 0 or step == recipe.steps:
            _save(work, student, optimizer, step)
        if step % score_every == 0 or step == recipe.steps:
            student.round_mlps(False)
            log(step=step, scores={s: round(student.score(s, of(s, cases)), 3) for s in requests.SPLITS})
    return _write(work, student, recipe)


def _write(work: Path, student: Student, recipe: Recipe) -> Path:
    from safetensors.torch import save_file

    path = work / "adapter.safetensors"
    save_file(lora.learned(student.trained), path, metadata={"recipe": json.dumps(asdict(recipe), sort_keys=True)})
    return path


class _Log:
    """One JSON object a line, on paper and on the screen."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, **row: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _save(work: Path, student: Student, optimizer: Any, step: int) -> None:
    import torch

    state = {"step": step, "trained": {n: p.detach() for n, p in student.trained.items()}}
    torch.save({**state, "optimizer": optimizer.state_dict()}, work / "checkpoint.part")
    (work / "checkpoint.part").replace(work / "checkpoint.pt")


def _restore(work: Path, student: Student, optimizer: Any) -> int:
    """The step to go on with."""
    import torch

    path = work / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, parameter in student.trained.items():
            parameter.copy_(state["trained"][name])
    tops = [group["top"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, top in zip(optimizer.param_groups, tops, strict=True):
        group["top"] = top
    return int(state["step"])


def publish(work: Path, home: Path = ADAPTER, *, cases: int = 120) -> dict[str, Any]:
    """Put the adapter of `work` into the zoo with the score of the checkpoint that is made from it.

    `home/score.json` says what made it, what it scores, and the sha256 of the assembled weights.
    """
    import tempfile

    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    from edge.export.zoo import _assemble

    base = open_source("smollm2")
    path = work / "adapter.safetensors"
    with safe_open(path, framework="pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    learned = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    with tempfile.TemporaryDirectory() as folder:
        files = {n: t for n, t in _assemble.side_files(base).items() if n != "chat_template.jinja"}
        sha256 = _assemble.write(_assemble.adapted(base, learned), files, Path(folder))
        model = load_model(replace(base, folder=Path(folder))).to(torch.float32)
    attention = packed_attention.install(model)
    template = ChatTemplate((ADAPTER / "chat_template.jinja").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.load(base.folder)
    scores = {}
    for split in requests.SPLITS:
        n = of(split, cases)
        scores[split] = {"right": exact(model, attention, template, tokenizer, split, n), "of": n}
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {row["step"]: row for row in rows if "loss" in row}
    record = {
        "weights_sha256": sha256,
        "script": "python -m edge.export.training.smollm2_act",
        "data": "edge/export/training/act",
        "recipe": recipe,
        "conversations": sum(row["conversations"] for row in steps.values()),
        "tokens": sum(row["tokens"] for row in steps.values()),
        "exact": scores,
    }
    (home / "adapter.safetensors").write_bytes(path.read_bytes())
    (home / "score.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main(argv: list[str] | None = None) -> None:
    """The command line: a folder to work in, and the few things worth trying differently."""
    parser = argparse.ArgumentParser(prog="python -m edge.export.training.smollm2_act", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the checkpoint, the log and the adapter")
    parser.add_argument("--begin", type=Path, help="adapter to go on from")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--score-every", type=int, default=1000, help="steps between scores of held-out cases")
    parser.add_argument("--cases", type=int, default=48, help="held-out cases of `known` and of `unseen` in a score")
    parser.add_argument("--publish", action="store_true", help="score WORK's adapter and put it into the zoo")
    args = parser.parse_args(argv)
    if args.publish:
        publish(args.work)
        return
    every = {"save_every": args.save_every, "score_every": args.score_every}
    train(args.work, Recipe(steps=args.steps), cases=args.cases, before=args.begin, **every)


if __name__ == "__main__":
    main()
