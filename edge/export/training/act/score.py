"""How many held-out cases a model answers rightly: the same tools with the same arguments, or the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.export.training import packed_attention
from edge.export.training.act import requests
from edge.export.training.act.requests import Case
from edge.export.training.act.tokens import Packed, of_case, packed
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import read

if TYPE_CHECKING:
    import torch

_MAX_TOKENS = 160
_END = "<|im_end|>"


def scores(
    model: Any, attention: packed_attention.Attention, batch: Packed, *, common: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the answer tokens of a pack, float32, and the place of the right one in each row's vocabulary.

    With `common`, the choice is between the first so many tokens of the vocabulary, which are the most
    frequent, and those of the pack.
    """
    import torch

    ids = torch.from_numpy(batch.ids)[None]
    attention.place(batch.talk)
    hidden = model.model(
        input_ids=ids,
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),  # not looked at: `place` has said it all
        position_ids=torch.from_numpy(batch.positions)[None],
        use_cache=False,
    ).last_hidden_state[0]
    # The head is a quarter of the model: only where an answer is predicted.
    where = torch.from_numpy(batch.answers[1:]).nonzero()[:, 0]
    targets, head = ids[0, where + 1], model.lm_head.weight
    if common is not None:
        words = torch.cat([torch.arange(min(common, len(head))), ids[0][ids[0] >= common].unique()])
        targets, head = torch.searchsorted(words, targets), head[words]
    return (hidden[where] @ head.T).float(), targets


def answered(
    model: Any, attention: packed_attention.Attention, batch: Packed, *, common: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of every answer token of a pack: its loss, whether it would be chosen, and where it stands."""
    import torch

    logits, targets = scores(model, attention, batch, common=common)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return loss, logits.argmax(-1) == targets, torch.from_numpy(batch.answers).nonzero()[:, 0]


def exact(
    model: Any,
    attention: packed_attention.Attention,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    split: str,
    n: int,
) -> int:
    """How many of `n` held-out cases greedy decoding answers rightly.

    Where every token of the right answer is the model's first choice after those before it, it would
    write just that. Else its own answer is written out: there are other tokens for the same text, and
    other texts for the same call.
    """
    import torch

    found = 0
    with torch.no_grad():
        for case in requests.held_out(split, n):
            batch = packed(of_case(case), template, tokenizer, 4096)
            _, chosen, where = answered(model, attention, batch)
            found += bool(chosen.all()) or right(case, _written(model, tokenizer, batch.ids[: int(where[0])]))
    return found


def right(case: Case, text: str) -> bool:
    """Whether a text says what the case wants: equal calls in the same order, or the same question or refusal."""
    answer = read(text)
    wanted = [c["function"] for c in case.answer.get("tool_calls", ())]
    if not answer.sound or [c.name for c in answer.calls] != [c["name"] for c in wanted]:
        return False
    if not wanted:
        return answer.text == case.answer["content"]
    return all(same(dict(c.arguments), w["arguments"]) for c, w in zip(answer.calls, wanted, strict=True))


def same(one: Any, other: Any) -> bool:
    """Equal as JSON values: 20 is 20.0, true is not 1, the order of an object's names says nothing.

    >>> same({"a": 20, "b": [True]}, {"b": [True], "a": 20.0}), same(1, True), same("a", " a")
    (True, False, False)
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def of(split: str, cases: int) -> int:
    """How many cases of a split are judged when `cases` of the two with an aim are."""
    return cases if split in ("known", "unseen") else cases // 4


def _written(model: Any, tokenizer: Tokenizer, prompt: Any) -> str:
    """What the model says after `prompt`, greedy."""
    import torch

    ids = torch.from_numpy(prompt)[None]
    packs, model.config._attn_implementation = model.config._attn_implementation, "sdpa"
    try:
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_MAX_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.id_of(_END),
            pad_token_id=0,
        )
    finally:
        model.config._attn_implementation = packs
    return tokenizer.decode(found[0, ids.shape[1] :].tolist(), skip_special=True)
