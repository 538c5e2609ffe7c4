"""Tool calls as `edge act` gets them: under the grammar of the tools, and a wish at a time.

Greedy decoding under a grammar says what it says without one, as long as that has the form. So only answers that have
it not are made anew, of the source and of the export. Plans are the cases with two wishes in one request, cut as
`edge act` cuts them; both calls must be right.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.export.checkpoint import Checkpoint
from edge.export.gate.replies import source_replies
from edge.export.gate.tool_calls import MAX_TOKENS, Case, read, score
from edge.runtimes import tool_calls
from edge.runtimes.act import clauses
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.grammar import Grammars
from edge.runtimes.session import Mask, Sampling, generate
from edge.runtimes.tokenizer import Tokenizer
from edge.runtimes.tool_calls import Answer

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Asking:
    """A session that is asked from the beginning, greedily, and what ends its answers."""

    session: Any
    stop_ids: Sequence[int]

    def __call__(self, prompt: Sequence[int], mask: Mask | None = None) -> list[int]:
        self.session.rewind(0)
        sampling = Sampling(max_tokens=MAX_TOKENS)
        return [t.id for t in generate(self.session, prompt, sampling, stop_ids=self.stop_ids, mask=mask)]


def look(
    checkpoint: Checkpoint,
    asked: Sequence[Case],
    source: Sequence[Sequence[int]],
    export: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    again: Asking,
    model: Callable[[], Any],
) -> dict[str, Any]:
    """`grammar` and `plans` of the record, from the replies of both to `asked`; `again` asks the export."""
    reference = Asking(Reference(model), again.stop_ids)
    prompts = plans(asked, tokenizer, template)
    flat = [p for plan in prompts for p in plan]
    replies = source_replies(checkpoint, flat, again.stop_ids, MAX_TOKENS, model) if flat else ()
    each = iter(r.ids for r in replies)
    return {
        "grammar": compare(asked, source, export, tokenizer, template, (reference, again)),
        "plans": {
            "cases": len(prompts),
            "source": planned(asked, [[next(each) for _ in plan] for plan in prompts], tokenizer),
            "export": planned(asked, [[again(p) for p in plan] for plan in prompts], tokenizer),
        },
    }


def compare(
    asked: Sequence[Case],
    source: Sequence[Sequence[int]],
    export: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    again: tuple[Asking, Asking],
) -> dict[str, Any] | None:
    """Scores of the source and of the export under the grammar, from their replies without one.

    `again` are the source and the export, which are asked anew where a reply has not the form. `None` when llguidance
    is not installed: then it is not known.
    """
    if importlib.util.find_spec("llguidance") is None:
        return None
    syntax = tool_calls.syntax_of(template.source) or "tags"
    engine = Grammars(tokenizer, again[1].stop_ids)
    # As the manifest stands in the case: several cases share one.
    grammars = {json.dumps(c.tools): engine.tools(c.tools, syntax, text=True) for c in asked}
    sampling = Sampling(max_tokens=MAX_TOKENS)
    record: dict[str, Any] = {"made_anew": {}}
    for name, replies, ask in zip(("source", "export"), (source, export), again, strict=True):
        answers: list[Answer] = []
        anew = 0
        for case, ids in zip(asked, replies, strict=True):
            grammar = grammars[json.dumps(case.tools)]
            sound = grammar.accepts(tokenizer.decode(ids, skip_special=True))
            anew += not sound
            answers.append(read(ids if sound else ask(case.prompt, grammar.mask(sampling)), tokenizer))
        record[name] = vars(score(asked, answers))
        record["made_anew"][name] = anew
    return record


def plans(asked: Sequence[Case], tokenizer: Tokenizer, template: ChatTemplate) -> list[list[tuple[int, ...]]]:
    """For each case with two wishes the prompts of its wishes, one by one."""
    found = []
    for case in asked:
        if case.split == "two":
            wishes = [c.text for c in clauses.split(case.request)]
            texts = [template.render([{"role": "user", "content": wish}], tools=case.tools) for wish in wishes]
            found.append([tuple(tokenizer.encode(text)) for text in texts])
    return found


def planned(asked: Sequence[Case], said: Sequence[Sequence[Sequence[int]]], tokenizer: Tokenizer) -> float | None:
    """Of the cases with two wishes the share in which all calls are right; `None` when there are none."""
    cases = [c for c in asked if c.split == "two"]
    right = []
    for case, replies in zip(cases, said, strict=True):
        answers = [read(ids, tokenizer) for ids in replies]
        calls = tuple(call for a in answers for call in a.calls)
        right.append(case.accepts(Answer(calls, sound=all(a.sound for a in answers))))
    return round(sum(right) / len(right), 4) if right else None


def judge(found: dict[str, Any] | None) -> list[str]:
    """What is wrong: an answer under the grammar that is neither a call nor text."""
    if found is None or found["export"]["json"] == 1:
        return []
    return [f"under the grammar {found['export']['json']:.1%} of the answers can be read: all must be"]


class Reference:
    """The source model as a session, as far as `generate` needs one."""

    context_length = 1 << 30

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model, self._past = model, None
        self.position = 0

    def rewind(self, n_tokens: int) -> None:
        """To the beginning."""
        self._past, self.position = None, 0

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits of the last position, `(vocab,)`."""
        import torch

        with torch.inference_mode():
            out = self._model()(
                torch.tensor([list(tokens)]), past_key_values=self._past, use_cache=True, logits_to_keep=1
            )
        self._past, self.position = out.past_key_values, self.position + len(tokens)
        logits: np.ndarray = out.logits[0, -1].float().numpy()
        return logits
