"""Packs as token ids: one manifest, then its conversations, none of which sees the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.export.training.act.requests import Case, Message, Pack

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.chat_template import ChatTemplate
    from edge.runtimes.tokenizer import Tokenizer

_DECIDING = 3.0  # weight of what decides: that a tool is called, and which
_REFUSING = 2.0  # weight of what decides that none is


@dataclass(frozen=True)
class Packed:
    """Arrays over the tokens of a pack, `n` of them.

    `ids` int64, `positions` int64 (they start again after the manifest for each conversation),
    `talk` int64 (-1 in the manifest, else which conversation), `answers` bool: what is learned,
    `weights` float32: how much it counts.
    """

    ids: np.ndarray
    positions: np.ndarray
    talk: np.ndarray
    answers: np.ndarray
    weights: np.ndarray

    def mask(self) -> np.ndarray:
        """bool `(n, n)`: a token sees what came before it in the manifest and in its own conversation."""
        import numpy as np

        same = (self.talk[None, :] == -1) | (self.talk[None, :] == self.talk[:, None])
        return same & np.tri(len(self.ids), dtype=bool)


def packed(pack: Pack, template: ChatTemplate, tokenizer: Tokenizer, limit: int) -> Packed:
    """The pack's first conversation, and of the others those that still fit into `limit` tokens."""
    import numpy as np

    beginning = template.render([], tools=pack.tools, add_generation_prompt=False)
    ids = list(tokenizer.encode(beginning))
    start = len(ids)
    positions, talk, answers = list(range(start)), [-1] * start, [False] * start
    weights = [0.0] * start
    number = 0
    for conversation in pack.conversations:
        own: list[int] = []
        learned: list[bool] = []
        counted: list[float] = []
        for text, is_answer in pieces(conversation, pack.tools, template, beginning):
            piece = tokenizer.encode(text)
            own += piece
            learned += [is_answer] * len(piece)
            # The first three tokens part a question back and a refusal from a call.
            calls = is_answer and "<tool_call>" in text
            deciding = len(tokenizer.encode(text.partition('","arguments"')[0])) if calls else 3
            weight = _DECIDING if calls else _REFUSING
            counted += [weight if i < deciding else 1.0 for i in range(len(piece))]
        if number and len(ids) + len(own) > limit:
            continue  # a shorter one may still fit
        ids += own
        positions += range(start, start + len(own))
        talk += [number] * len(own)
        answers += learned
        weights += counted
        number += 1
    counts = np.asarray(weights, np.float32)
    return Packed(np.asarray(ids), np.asarray(positions), np.asarray(talk), np.asarray(answers), counts)


def pieces(
    conversation: Sequence[Message], tools: Sequence[dict[str, Any]], template: ChatTemplate, beginning: str
) -> list[tuple[str, bool]]:
    """The conversation's text after `beginning`, cut into what is given and what the model should write."""
    found: list[tuple[str, bool]] = []
    done = beginning
    for i, message in enumerate(conversation):
        whole = template.render(conversation[: i + 1], tools=tools, add_generation_prompt=False)
        if message["role"] == "assistant":
            prompt = template.render(conversation[:i], tools=tools, add_generation_prompt=True)
            # The end-of-turn token is learned, the line break after it is not.
            answer = whole[len(prompt) :].removesuffix("\n")
            found += [(prompt[len(done) :], False), (answer, True), (whole[len(prompt) + len(answer) :], False)]
        else:
            found.append((whole[len(done) :], False))
        done = whole
    return [(text, answer) for text, answer in found if text]


def of_case(case: Case) -> Pack:
    """A case with its right answer, as a pack of one."""
    return Pack(case.tools, ((*case.messages, case.answer),))
