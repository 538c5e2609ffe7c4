"""The student learns what its teacher says: batches, steps, looks at held-out text, and going on after a kill.

Below the work folder lie `state/` (weights, optimizer, random numbers: what `accelerate` keeps, and the step they are
of), `best/` (the weights that did best on held-out text) and `log.jsonl`, a line for each step and each look. Run by
`accelerate launch`, several processes or machines share each batch.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed

from edge.errors import EdgeError
from edge.export.checkpoint import Checkpoint
from edge.export.distill import answers
from edge.export.distill.precision import has_bfloat16
from edge.export.distill.recipe import LOSSES, Loss, Train
from edge.export.distill.store import Store
from edge.export.reference import load_model
from edge.find import load
from edge.progress import Progress

_LOGIT_BYTES = 192 << 20  # of the student's logits at one time; its gradient and a softmax are as large
_KEEP_EVERY_S = 120.0
_LOWERED = 3  # times that the rate is halved after a loss that is no number
_LEAST = 0.05  # of the rate, at the end
_STATES = ("state", "state.old")
_MOST_GRADIENT = 1.0
Rounding = Callable[[str, torch.Tensor], "torch.Tensor | None"]


@dataclass(frozen=True)
class Learned:
    """How it went: steps and tokens learned from, divergence of held-out text before, at best and at which step."""

    steps: int
    tokens: int
    before: float
    best: float
    best_step: int
    stopped: str
    cpu_s: float


def train(
    student: Checkpoint, store: Store, held: Store, losses: Sequence[Loss], plan: Train, work: Path,
    progress: Progress, *, teacher: Checkpoint | None = None, layers: Sequence[int] = (),
    rounding: Rounding | None = None,
) -> Learned:  # fmt: skip
    """Train `student`; its best weights are in `work/best` afterwards.

    `teacher` and `layers`, the teacher's layers that the student's came from, are for losses on hidden states.
    `rounding` gives what a file will hold of a parameter: products are computed with that, and that is kept in the end.
    Raises `EdgeError` when the loss stays no number although the rate was lowered; what was learned is kept.
    """
    failed_at = -1
    while True:
        try:
            return _Run(student, store, held, losses, plan, work, progress, teacher, layers, rounding).go()
        except _NotANumber as err:
            halved = _halvings(work)
            # What was kept leads nowhere when it fails at once, twice.
            stuck = err.step == failed_at == _kept_step(work) > 0
            failed_at = err.step
            if halved >= _LOWERED:
                raise EdgeError(
                    f"the loss is no number at step {err.step}, with a rate of {plan.rate / 2**halved:.2g} too; "
                    f"what was learned before is kept in {work}",
                    hint="lower rate under [train], or look at the text: one that is empty or nothing but one token",
                ) from None
            PartialState().wait_for_everyone()  # all have read it
            if PartialState().is_main_process:
                (work / "lowered").write_text(str(halved + 1))
                for name in _STATES if stuck else ():
                    shutil.rmtree(work / name, ignore_errors=True)
            PartialState().wait_for_everyone()
            where = "from the beginning" if stuck else "from what was kept"
            progress.say(f"the loss is no number at step {err.step}: going on {where}, at half the rate")


class _NotANumber(Exception):
    def __init__(self, step: int) -> None:
        super().__init__(f"step {step}")
        self.step = step


def _kept(work: Path) -> Path | None:
    """The folder of the state that was kept last."""
    return next((work / name for name in _STATES if (work / name / "at.json").is_file()), None)


def _kept_step(work: Path) -> int:
    """The step that the kept state is of, 0 where there is none."""
    found = _kept(work)
    return 0 if found is None else int(json.loads((found / "at.json").read_text())["step"])


def _halvings(work: Path) -> int:
    kept = work / "lowered"
    return int(kept.read_text()) if kept.is_file() else 0


def batches(store: Store, plan: Train) -> list[list[int]]:
    """The texts of every step, the same for the same plan: texts of like length together, so that little is padding."""
    draw = random.Random(plan.seed)
    out: list[list[int]] = []
    tokens = 0
    while tokens < plan.tokens:
        order = list(range(len(store)))
        draw.shuffle(order)
        groups: list[list[int]] = []
        for at in range(0, len(order), plan.batch * 8):
            near = sorted(order[at : at + plan.batch * 8], key=lambda i: len(store[i]))
            groups += [near[i : i + plan.batch] for i in range(0, len(near), plan.batch)]
        draw.shuffle(groups)
        for group in groups:
            if tokens >= plan.tokens:
                break
            out.append(group)
            tokens += sum(len(store[i]) for i in group)
    return out


def parts(chosen: Sequence[int], process: int, processes: int, at_once: int) -> list[list[int]]:
    """The texts of a step that one process takes, a few at a time: as many times in each, though some be empty.

    >>> parts([1, 2, 3, 4, 5], 0, 2, 2), parts([1, 2, 3, 4, 5], 1, 2, 2)
    ([[1, 3], [5]], [[2, 4], []])
    """
    mine = list(chosen)[process::processes]
    most = -(-len(chosen) // processes)  # after each part gradients are shared, for which all wait for all
    return [mine[i : i + at_once] for i in range(0, most, at_once)]


def recorded(model: Any) -> list[Any]:
    """What each layer gives in the pass that was last, filled from now on.

    transformers' own list has the last layer's after the final norm, which no layer in the middle goes through.
    """
    states: list[Any] = []
    first = model.model.layers[0]

    def keep(layer: Any, _: Any, out: Any) -> None:
        if layer is first:
            states.clear()
        states.append(out[0] if isinstance(out, tuple) else out)

    for layer in model.model.layers:
        layer.register_forward_hook(keep)
    return states


def rate_at(share: float, plan: Train) -> float:
    """The rate when `share` of the training is done: up in a line, down in half a cosine to a twentieth."""
    if share < plan.warmup:
        return plan.rate * max(share, 1e-3) / plan.warmup
    down = (share - plan.warmup) / max(1e-9, 1 - plan.warmup)
    return plan.rate * (_LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * min(1.0, down))))


class _Run:
    """One go, from what was kept until the end, an early stop, or a kill."""

    def __init__(
        self, student: Checkpoint, store: Store, held: Store, losses: Sequence[Loss], plan: Train, work: Path,
        progress: Progress, teacher: Checkpoint | None, layers: Sequence[int], rounding: Rounding | None,
    ) -> None:  # fmt: skip
        logging.getLogger("accelerate").setLevel(logging.ERROR)  # it tells that tied weights are stored once
        half = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else has_bfloat16()
        self._accelerator = Accelerator(mixed_precision="bf16" if half else "no")
        set_seed(plan.seed)
        self._store, self._held, self._plan, self._work, self._progress = store, held, plan, work, progress
        self._losses = [(load(LOSSES, one.kind), one) for one in losses]
        model = load_model(student)
        model.config.use_cache = False
        wants_hidden = any(module.WANTS == "hidden" for module, _ in self._losses)
        self._states = recorded(model) if wants_hidden else []
        optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._model, self._optimizer = self._accelerator.prepare(model, optimizer)
        self._teacher = None
        if wants_hidden:
            assert teacher is not None
            self._teacher = load_model(teacher).to(self._accelerator.device)
            self._taught = recorded(self._teacher)
        self._layers = list(layers)
        self._rounding = rounding
        self._batches = batches(store, plan)
        self._at_once = max(1, _LOGIT_BYTES // (4 * 256 * store.vocab_size))
        self._scale = 0.5 ** _halvings(work)

    def go(self) -> Learned:
        at = self._restore()
        self._progress.start("the student learns", len(self._batches))
        began, kept_at = time.process_time(), time.monotonic()
        if at["before"] is None:
            at["before"] = self._look(at)
        spent_before = at["cpu_s"]
        for step in range(at["step"], len(self._batches)):
            if at["worse"] >= self._plan.patience:  # also where it stopped in an earlier go
                break
            rate = rate_at(step / len(self._batches), self._plan) * self._scale
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            found, tokens = self._step(self._batches[step], step)
            at["step"], at["tokens"] = step + 1, at["tokens"] + tokens
            at["cpu_s"] = spent_before + time.process_time() - began
            self._log(step=step, loss=found, rate=rate, tokens=at["tokens"], cpu_s=round(at["cpu_s"], 1))
            self._progress.advance(step + 1)
            last = step + 1 == len(self._batches)
            if last or (step + 1) % self._plan.check_every == 0:
                self._look(at)
                self._keep(at)
                kept_at = time.monotonic()
            elif time.monotonic() - kept_at > _KEEP_EVERY_S:
                self._keep(at)
                kept_at = time.monotonic()
        why = "all of the text was learned from"
        if at["worse"] >= self._plan.patience:
            why = f"{at['worse']} looks at the held-out text in a row were no better"
        return Learned(at["step"], at["tokens"], at["before"], at["best"], at["best_step"], why, round(at["cpu_s"], 1))

    def _step(self, chosen: Sequence[int], step: int) -> tuple[float, int]:
        """One step on these texts, a few at a time; the mean loss and how many tokens they are."""
        self._model.train()
        n_all = sum(len(self._store[i]) for i in chosen)
        state = self._accelerator
        total = torch.zeros((), device=state.device)
        with self._as_stored():
            for part in parts(chosen, state.process_index, state.num_processes, self._at_once):
                # A process that no text is left for goes along with none of its weight: the others wait for it.
                loss = self._loss(answers.batch(self._store, part or chosen[:1])) * (1 if part else 0) / n_all
                # Gradients are averaged over processes, and each has a part of the sum.
                state.backward(loss * state.num_processes)
                total += loss.detach()
        mean = float(state.reduce(total, reduction="sum")) if state.num_processes > 1 else float(total)
        if not math.isfinite(mean):
            self._optimizer.zero_grad()
            raise _NotANumber(step)
        norm = state.clip_grad_norm_(self._model.parameters(), _MOST_GRADIENT)
        if norm is not None and not math.isfinite(float(norm)):  # the step would leave weights that are no numbers
            self._optimizer.zero_grad()
            raise _NotANumber(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return mean, n_all

    @contextmanager
    def _as_stored(self) -> Iterator[None]:
        """Within, parameters are what the file will hold of them; their gradients move those behind them."""
        behind = []
        if self._rounding is not None:
            for name, parameter in self._accelerator.unwrap_model(self._model).named_parameters():
                held = self._rounding(name, parameter.data)
                if held is not None:
                    behind.append((parameter, parameter.data))
                    parameter.data = held
        try:
            yield
        finally:
            for parameter, data in behind:
                parameter.data = data

    def _loss(self, batch: answers.Batch) -> Any:
        """The summed loss of all tokens."""
        batch = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            out = self._model(batch.ids, attention_mask=batch.mask, use_cache=False)
        sides = {"answers": (batch.logs, answers.said(out.logits, batch))}
        if self._teacher is not None:
            sides["hidden"] = self._hidden(batch)
        total: Any = 0.0
        for module, one in self._losses:
            total = total + one.weight * module.loss(*sides[module.WANTS], one.options).sum()
        return total

    def _hidden(self, batch: answers.Batch) -> tuple[Any, Any]:
        """States after each of the student's layers, and after the teacher's that they came from."""
        assert self._teacher is not None
        with torch.no_grad(), self._accelerator.autocast():
            self._teacher(batch.ids, attention_mask=batch.mask, use_cache=False)
        real = batch.mask.bool()
        theirs = torch.stack([self._taught[i][real].float() for i in self._layers])
        ours = torch.stack([state[real].float() for state in self._states])
        self._taught.clear()
        self._states.clear()
        return theirs, ours

    def _look(self, at: dict[str, Any]) -> float:
        """Divergence on held-out text; the weights are kept when it is the least so far."""
        self._model.eval()
        with self._as_stored(), self._accelerator.autocast():
            found = answers.kld(self._model, self._held, texts_at_once=self._at_once)
        if not math.isfinite(found):
            raise _NotANumber(at["step"])
        better = at["best"] is None or found < at["best"]
        self._log(step=at["step"], held_out_kld=found)
        if better:
            at["best"], at["best_step"], at["worse"] = found, at["step"], 0
            self._save_best()
        else:
            at["worse"] += 1
        self._progress.say(f"step {at['step']}: {found:.3f} nats from its teacher on held-out text")
        return found

    def _save_best(self) -> None:
        if self._accelerator.is_main_process:
            work, final = self._work / "best.part", self._work / "best"
            shutil.rmtree(work, ignore_errors=True)
            with self._as_stored():
                self._accelerator.unwrap_model(self._model).save_pretrained(work)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(work, final)
        self._accelerator.wait_for_everyone()

    def _keep(self, at: dict[str, Any]) -> None:
        """The whole state in a folder of its own, then one rename; the one before stays until then."""
        work, final, old = (self._work / name for name in ("state.part", *_STATES))
        if self._accelerator.is_main_process:
            shutil.rmtree(work, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(work))
        if self._accelerator.is_main_process:
            (work / "at.json").write_text(json.dumps(at))
            shutil.rmtree(old, ignore_errors=True)
            if final.is_dir():
                os.replace(final, old)
            os.replace(work, final)
            shutil.rmtree(old, ignore_errors=True)
        self._accelerator.wait_for_everyone()

    def _restore(self) -> dict[str, Any]:
        """Where an earlier run was, or the beginning; the log is cut there."""
        found = _kept(self._work)
        if found is None:
            self._cut_log(-1)
            return {"step": 0, "tokens": 0, "before": None, "best": None, "best_step": 0, "worse": 0, "cpu_s": 0.0}
        at: dict[str, Any] = json.loads((found / "at.json").read_text())
        self._accelerator.load_state(str(found))
        self._cut_log(at["step"])
        self._progress.say(f"going on at step {at['step']} of {len(self._batches)}")
        return at

    def _cut_log(self, step: int) -> None:
        path = self._work / "log.jsonl"
        if not path.is_file() or not self._accelerator.is_main_process:
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # half a line, from a kill
                continue
            if row["step"] < step or ("held_out_kld" in row and row["step"] == step):
                kept.append(line)
        path.write_text("".join(f"{line}\n" for line in kept))

    def _log(self, **row: Any) -> None:
        if self._accelerator.is_main_process:
            with (self._work / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
