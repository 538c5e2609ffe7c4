"""Packs as tokens: what is learned, and that conversations do not see each other."""

from __future__ import annotations

import random

import numpy as np

from edge.export.training.act import requests
from edge.export.training.act.tokens import of_case, packed, pieces
from edge.export.zoo._assemble import ADAPTERS
from edge.runtimes.chat_template import ChatTemplate
from edge.runtimes.tokenizer import Tokenizer
from tests.tiny_bundle import tiny_bundle

TEMPLATE = ChatTemplate((ADAPTERS / "smollm2-act" / "chat_template.jinja").read_text(encoding="utf-8"))


def tokenizer(tmp_path) -> Tokenizer:
    tiny_bundle(tmp_path)
    return Tokenizer.load(tmp_path)


def test_only_answers_are_learned_with_their_end(tmp_path):
    words = tokenizer(tmp_path)
    pack = requests.pack(random.Random(1), 1)
    found = packed(pack, TEMPLATE, words, 4096)
    learned = words.decode(found.ids[found.answers].tolist(), skip_special=False)
    wanted = [
        text
        for text, answer in pieces(
            pack.conversations[0],
            pack.tools,
            TEMPLATE,
            TEMPLATE.render([], tools=pack.tools, add_generation_prompt=False),
        )
        if answer
    ]
    assert learned == "".join(wanted)
    assert all(text.endswith("<|im_end|>") for text in wanted)


def test_a_conversation_sees_the_manifest_and_itself(tmp_path):
    words = tokenizer(tmp_path)
    pack = requests.pack(random.Random(2), 3)
    found = packed(pack, TEMPLATE, words, 100_000)
    mask = found.mask()
    start = int((found.talk == -1).sum())
    assert set(found.talk.tolist()) == {-1, 0, 1, 2}
    for talk in range(3):
        own = np.flatnonzero(found.talk == talk)
        assert found.positions[own].tolist() == list(range(start, start + len(own)))
        last = mask[own[-1]]
        assert last[:start].all()
        assert last[own].all()
        assert last.sum() == start + len(own)
        alone = packed(requests.Pack(pack.tools, (pack.conversations[talk],)), TEMPLATE, words, 100_000)
        assert alone.ids.tolist() == [*found.ids[:start].tolist(), *found.ids[own].tolist()]
    assert not np.triu(mask, 1).any()


def test_no_more_conversations_than_fit(tmp_path):
    words = tokenizer(tmp_path)
    pack = requests.pack(random.Random(3), 6)
    whole = packed(pack, TEMPLATE, words, 100_000)
    short = packed(pack, TEMPLATE, words, len(whole.ids) - 1)
    assert len(short.ids) < len(whole.ids)
    assert packed(pack, TEMPLATE, words, 1).talk.max() == 0


def test_what_decides_counts_three_times(tmp_path):
    words = tokenizer(tmp_path)
    [case] = requests.held_out("known", 1)
    found = packed(of_case(case), TEMPLATE, words, 4096)
    made = case.answer["tool_calls"][0]["function"]
    decided = words.decode(found.ids[found.weights == 3].tolist(), skip_special=False)
    assert made["name"] in decided
    assert not any(str(v) in decided for v in made["arguments"].values())
    assert set(found.weights[found.answers].tolist()) == {1.0, 3.0}
    assert not found.weights[~found.answers & (found.talk == -1)].any()


def test_a_case_is_a_pack_of_one(tmp_path):
    [case] = requests.held_out("known", 1)
    found = packed(of_case(case), TEMPLATE, tokenizer(tmp_path), 4096)
    assert found.answers.any()
    assert found.talk.max() == 0
