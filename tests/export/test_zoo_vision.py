"""The built-in model that sees: put together to the byte, and it answers questions about pictures it never saw."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.export.corpus.picture_questions import KINDS, held_out
from edge.export.corpus.pictures import draw
from edge.export.source import open_source
from edge.export.training._vision_score import N_PICTURES, _told, best_guess
from edge.export.zoo import smollm2_vision as zoo
from edge.export.zoo._assemble import ADAPTERS
from edge.readers import safetensors

HOME = ADAPTERS / "smollm2-vision"
SCORE = json.loads((HOME / "score.json").read_text(encoding="utf-8"))


def test_new_rows_of_the_embedding_are_small_but_not_nothing():
    embedding = np.random.default_rng(0).normal(size=(49152, 2)).astype(np.float32)
    wide = zoo.widen(embedding)
    assert wide.shape == (zoo.VOCAB_SIZE, 2)
    assert np.array_equal(wide[:49152], embedding)
    assert 0 < np.abs(wide[49152:]).max() < 0.05


def test_the_adapter_is_small_and_in_float16():
    header = safetensors.read_header(HOME / "adapter.safetensors")
    assert {t.dtype for t in header.tensors.values()} == {"F16"}
    assert (HOME / "adapter.safetensors").stat().st_size < 7e6


def test_the_score_is_high_far_above_the_blind_and_adds_up():
    told = [SCORE["score"], *SCORE["blind"].values()]
    for part in told:
        pairs = [tuple(map(int, pair.split("/"))) for pair in part["by_kind"].values()]
        assert (sum(r for r, _ in pairs), sum(n for _, n in pairs)) == (part["right"], part["asked"])
        assert part["share"] == round(part["right"] / part["asked"], 4)
        assert set(part["by_kind"]) == set(KINDS)
    assert SCORE["score"]["share"] >= 0.9
    assert all(part["share"] < 0.3 for part in SCORE["blind"].values())
    assert SCORE["score"]["asked"] == sum(len(asked) for _, asked in held_out(N_PICTURES))


def test_the_best_guess_without_looking_is_what_the_score_says():
    assert _told(*best_guess(range(N_PICTURES))) == SCORE["blind"]["best guess"]


def test_the_card_says_what_the_score_says():
    card = (HOME / "card.md").read_text(encoding="utf-8")
    for part in (SCORE["score"], *SCORE["blind"].values()):
        assert f"{part['right']} of {part['asked']}" in card
    for kind, pair in SCORE["score"]["by_kind"].items():
        assert f"| {kind} | {pair.replace('/', ' of ')} |" in card
    assert f"{SCORE['chat']['smollm2-vision']:.2f}" in card


@pytest.fixture(scope="module")
def checkpoint():
    return open_source("smollm2-vision")


@pytest.mark.runtime
def test_it_is_a_checkpoint_as_the_ecosystem_has_them(checkpoint):
    assert checkpoint.family == "vlm"
    assert checkpoint.licence == "apache-2.0"
    assert json.loads((checkpoint.folder / "config.json").read_text())["model_type"] == "llava"
    from edge.export.reference import load_processor, load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.convert_tokens_to_ids("<image>") == zoo.IMAGE_TOKEN_ID
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]}]
    processor = load_processor(checkpoint)
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == "<|im_start|>user\n<image>What?<|im_end|>\n<|im_start|>assistant\n"
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    assert (
        tokenizer.apply_chat_template(plain, tokenize=False)
        == "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.runtime
def test_it_answers_questions_about_pictures_it_never_saw_and_chats_without_one(checkpoint):
    from edge.export.reference import load_model, load_processor

    model, processor = load_model(checkpoint), load_processor(checkpoint)

    def answer(question, picture=None):
        parts = [{"type": "text", "text": question}]
        if picture is not None:
            parts.insert(0, {"type": "image"})
        text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        inputs = processor(text=text, images=None if picture is None else [picture], return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=48, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return processor.tokenizer.decode(ids, skip_special_tokens=True)

    asked = [(scene, q) for scene, qs in held_out(12, each=2) for q in qs]
    right = sum(q.is_right(answer(q.text, draw(scene))) for scene, q in asked)
    assert right >= 0.8 * len(asked)
    assert "Paris" in answer("What is the capital of France?")
