"""The built-in model that acts: put together to the byte, a LAM, and as good as its card says."""

from __future__ import annotations

import json
import re

import pytest

from edge.export.families import lam
from edge.export.source import open_source
from edge.export.training.act import requests
from edge.export.zoo._assemble import ADAPTERS
from edge.readers import safetensors

HOME = ADAPTERS / "smollm2-act"
SCORE = json.loads((HOME / "score.json").read_text(encoding="utf-8"))


def test_the_adapter_is_small_and_in_float16():
    header = safetensors.read_header(HOME / "adapter.safetensors")
    assert {t.dtype for t in header.tensors.values()} == {"F16"}
    assert (HOME / "adapter.safetensors").stat().st_size < 21e6


def test_the_card_says_what_was_scored():
    card = (HOME / "card.md").read_text(encoding="utf-8")
    assert set(SCORE["exact"]) == set(requests.SPLITS)
    for split, found in SCORE["exact"].items():
        assert re.search(rf"\| {split} \|.*\| {found['right']} of {found['of']} \|", card), split
    assert "Apache-2.0" in card


@pytest.mark.runtime
def test_it_is_put_together_with_the_template_that_shows_tools():
    checkpoint = open_source("smollm2-act")
    assert (checkpoint.name, checkpoint.family, checkpoint.model_type) == ("smollm2-act", "lam", "llama")
    assert lam.acts(checkpoint)
    assert not lam.acts(open_source("smollm2"))
    assert (checkpoint.folder / "chat_template.jinja").read_bytes() == (HOME / "chat_template.jinja").read_bytes()


@pytest.mark.runtime
def test_transformers_renders_tools_as_we_do():
    from edge.export.reference import load_tokenizer
    from edge.runtimes.chat_template import ChatTemplate

    checkpoint = open_source("smollm2-act")
    theirs, ours = load_tokenizer(checkpoint), ChatTemplate.load(checkpoint.folder)
    assert ours is not None
    for case in [c for split in requests.SPLITS for c in requests.held_out(split, 3)]:
        messages, tools = [*case.messages, case.answer], list(case.tools)
        assert theirs.apply_chat_template(messages, tools=tools, tokenize=False) == ours.render(
            messages, tools=tools, add_generation_prompt=False
        )
