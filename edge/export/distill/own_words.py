"""Text that the teacher writes itself, when there is none of the user's.

A model that was tuned on conversations writes the user's side too when it is given nothing but the beginning of a
user's message (Xu et al. 2024, "Magpie", arXiv:2406.08464): first questions, then its answers to them. Or it answers
what it is asked, each request many times. A model without a chat template goes on from a first token. Batch by batch
into a file, so that a run that was stopped goes on after the last whole batch; a batch depends on its number and the
seed alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError
from edge.export.checkpoint import Checkpoint
from edge.export.distill.precision import has_bfloat16
from edge.export.reference import load_model
from edge.progress import Progress
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

BATCH = 128
QUESTION_TOKENS, ANSWER_TOKENS = 80, 192
QUESTION_HEAT, ANSWER_HEAT = 1.0, 0.8
_TOP_P = 0.95
_SHORTEST = 4  # tokens; shorter questions and answers teach nothing
_EMPTY_BATCHES = 8  # in a row, after which there is nothing to hope for
_MARK = "\u2402edge\u2403"


def write(
    checkpoint: Checkpoint, path: Path, *, n_tokens: int, seed: int, progress: Progress, requests: Sequence[str] = ()
) -> list[list[int]]:
    """Texts as ids, `n_tokens` of them or a few more, also kept in `path` (one JSON list a line, by batch).

    With `requests` they are answers to those. What is kept there beyond that is left where it is: the same seed gives
    the same text, more or less of it. Raises `EdgeError` when the teacher writes nothing that can be used, and
    `UsageError` when it has no chat template to be asked by.
    """
    import torch

    batches = _kept(path)
    texts: list[list[int]] = []
    written = 0
    for batch in batches:
        texts += batch
        written += sum(map(len, batch))
        if written >= n_tokens:
            return texts
    progress.start(f"the teacher {'answers requests' if requests else 'writes text'} to learn from", n_tokens)
    writer = _Writer(checkpoint, requests)
    new = None if requests else 48  # tokens by which texts differ: answers to one request begin with it
    seen = {tuple(text[:new]) for text in texts}
    with path.open("a", encoding="utf-8") as file:
        for n in range(len(batches), 1 << 30):
            torch.manual_seed(seed + n)
            batch = []
            for text in writer.batch():
                if (begin := tuple(text[:new])) not in seen:
                    seen.add(begin)
                    batch.append(text)
            batches.append(batch)
            if not any(batches[-_EMPTY_BATCHES:]):
                raise EdgeError(
                    f"{checkpoint.name} wrote no text that could be used in {_EMPTY_BATCHES} batches of {BATCH}",
                    hint="give text of your own: files under [text] in the recipe",
                )
            file.write(json.dumps(batch) + "\n")
            file.flush()
            os.fsync(file.fileno())
            texts += batch
            written += sum(map(len, batch))
            progress.advance(min(written, n_tokens))
            if written >= n_tokens:
                return texts
    raise AssertionError("unreachable")


def _kept(path: Path) -> list[list[list[int]]]:
    """Whole batches of an earlier run; half a line at the end is cut off."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


class _Writer:
    """The teacher, and how a conversation with it begins."""

    def __init__(self, checkpoint: Checkpoint, requests: Sequence[str] = ()) -> None:
        import torch

        self._requests = requests
        self._template = ChatTemplate.load(checkpoint.folder)
        if requests and self._template is None:
            raise UsageError(
                f"{checkpoint.name} has no chat template, so it cannot be asked the requests under [text]",
                hint="leave them out: it then writes text of its own",
            )

        # What is written is drawn by lot; half the bits do not show, and cost a quarter of the time.
        self._model = load_model(checkpoint).to(torch.bfloat16 if has_bfloat16() else torch.float32)
        self._tokenizer = Tokenizer.load(checkpoint.folder)
        self._vocab_size = int(checkpoint.text_config["vocab_size"])
        from edge.export.pack import stop_ids

        ends = checkpoint.text_config.get("eos_token_id")
        self._stops = {*stop_ids(checkpoint.folder), *(ends if isinstance(ends, list) else [ends])} - {None}

    def batch(self) -> list[list[int]]:
        """Texts of one batch, ends of their answers included."""
        if self._template is None:
            starts = self._first_tokens()
            return [s + t for s, t in zip(starts, self._go_on(starts, ANSWER_TOKENS, ANSWER_HEAT), strict=True)]
        questions = self._asked() if self._requests else self._own_questions(self._template)
        if not questions:
            return []
        prompts = [
            self._tokenizer.encode(self._template.render([{"role": "user", "content": q}], add_generation_prompt=True))
            for q in questions
        ]
        answers = self._go_on(prompts, ANSWER_TOKENS, ANSWER_HEAT)
        return [p + a for p, a in zip(prompts, answers, strict=True) if len(a) > _SHORTEST]

    def _asked(self) -> list[str]:
        """Requests by lot, as many as a batch has."""
        import torch

        drawn = torch.randint(len(self._requests), (BATCH,))
        return [self._requests[int(i)] for i in drawn]

    def _own_questions(self, template: ChatTemplate) -> list[str]:
        before = template.render([{"role": "user", "content": _MARK}], add_generation_prompt=False)
        opening = self._tokenizer.encode(before.partition(_MARK)[0])
        asked = self._go_on([opening] * BATCH, QUESTION_TOKENS, QUESTION_HEAT)
        # A question that was not finished is no question.
        questions = [
            self._tokenizer.decode(q, skip_special=True).strip()
            for q in asked
            if q and q[-1] in self._stops and len(q) > _SHORTEST
        ]
        return [q for q in dict.fromkeys(questions) if q]

    def _first_tokens(self) -> list[list[int]]:
        """A first token each, drawn from what the model expects at the beginning of a text."""
        import torch

        first = self._tokenizer.encode("", add_special=True) or [int(torch.randint(self._vocab_size, (1,)))]
        logits = self._model(torch.tensor([first]), use_cache=False).logits[0, -1].float()
        drawn = torch.multinomial(logits.softmax(-1), BATCH, replacement=True)
        return [[*first, int(t)] for t in drawn]

    def _go_on(self, starts: Sequence[Sequence[int]], most: int, heat: float) -> list[list[int]]:
        """What comes after each of `starts`, up to and with the token that ends it."""
        import torch

        longest = max(map(len, starts))
        ids = torch.tensor([[0] * (longest - len(s)) + list(s) for s in starts])
        mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in starts])
        made: list[list[int]] = [[] for _ in starts]
        rows = torch.arange(len(starts))  # who is still written
        cache: Any = None
        with torch.inference_mode():
            for _ in range(most):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = self._model(
                    ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True,
                    logits_to_keep=1,
                )  # fmt: skip
                cache = out.past_key_values
                ids = _draw(out.logits[:, -1].float(), heat)
                for row, token in zip(rows.tolist(), ids[:, 0].tolist(), strict=True):
                    if not made[row] or made[row][-1] not in self._stops:
                        made[row].append(token)
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
                going = torch.tensor([made[row][-1] not in self._stops for row in rows.tolist()])
                if not going.any():
                    break
                if 4 * int(going.sum()) <= 3 * len(rows):  # what has ended need not be computed
                    cache.batch_select_indices(going.nonzero()[:, 0])
                    ids, mask, rows = ids[going], mask[going], rows[going]
        return made


def _draw(logits: torch.Tensor, heat: float) -> torch.Tensor:
    """One token of each row `(rows, 1)`, from the likeliest that make up `_TOP_P` together."""
    import torch

    best, order = (logits / heat).topk(min(512, logits.shape[-1]), -1)
    shares = best.softmax(-1)
    shares = shares * ((shares.cumsum(-1) - shares) < _TOP_P)
    return order.gather(1, torch.multinomial(shares, 1))
