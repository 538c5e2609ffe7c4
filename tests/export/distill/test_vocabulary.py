"""Trimmed tokenizers: what stays, that trimmed-in text is cut as before, and that no text fails."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InputError, UsageError
from edge.export.distill import vocabulary
from edge.runtimes.tokenizer import Tokenizer
from tests import checkpoint_parts as parts

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
KINDS = ("smollm", "llama3", "sentencepiece")
WORDS = sorted({w for text in parts.texts()[:30] for w in text.split()})


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """The whole tokenizer, the trimmed one, and what was trimmed, of each kind."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "trimmed"))
    if request.param == "sentencepiece":
        parts.sentencepiece(
            whole, special=(), eos="</s>", bos="<s>", template=parts.CHATML, kind="LlamaTokenizerFast", vocab_size=1500
        )
    else:
        options = {"digits": True} if request.param == "smollm" else {"cut": parts.BY_THREES, "whole_words": True}
        if request.param == "llama3":
            options |= {"bos": SPECIAL[0], "first": True}
        parts.byte_level(whole, special=SPECIAL, eos=SPECIAL[2], template=parts.CHATML, vocab_size=1500, **options)
    data = json.loads((whole / "tokenizer.json").read_text())
    tokenizer = Tokenizer.load(whole)
    trimmed = vocabulary.trim(data, vocabulary.count([tokenizer.encode(t) for t in parts.texts()[:30]]), tokens=None)
    vocabulary.write_side_files(whole, folder, trimmed)
    return tokenizer, Tokenizer.load(folder), trimmed, whole, folder


def test_it_is_smaller_and_a_multiple_of_64(made):
    whole, new, trimmed, *_ = made
    assert len(trimmed.kept) == new.vocab_size < whole.vocab_size
    assert len(trimmed.kept) % 64 == 0
    assert list(trimmed.kept) == sorted(trimmed.kept)


@settings(max_examples=60)
@given(chosen=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
def test_words_that_were_trimmed_in_are_cut_as_before(made, chosen):
    whole, new, trimmed, *_ = made
    text = " ".join(chosen)
    ids = whole.encode(text)
    if all(i in trimmed.new_id for i in ids):
        assert new.encode(text) == [trimmed.new_id[i] for i in ids]
    assert new.decode(new.encode(text)) == whole.decode(ids)


def test_the_text_itself_uses_kept_tokens_alone(made):
    whole, new, trimmed, *_ = made
    for text in parts.texts()[:30]:
        assert new.encode(text) == [trimmed.new_id[i] for i in whole.encode(text)]


@settings(max_examples=150)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_text_fails(made, text):
    whole, new, *_ = made
    assert new.decode(new.encode(text, parse_special=False)) == whole.decode(whole.encode(text, parse_special=False))


def test_control_tokens_and_what_is_put_around_a_text_keep_their_meaning(made):
    whole, new, trimmed, *_ = made
    for old in whole.special_ids:
        name = whole.decode([old])
        assert new.id_of(name) == trimmed.new_id[old]
    for text in ("Hello", SPECIAL[1] + "user\nHi" + SPECIAL[2]):
        assert new.encode(text, add_special=True)[:1] == [
            trimmed.new_id.get(i) for i in whole.encode(text, add_special=True)[:1]
        ]


def test_sentencepiece_s_own_file_says_the_same(made):
    _, new, trimmed, source, folder = made
    if not (source / "tokenizer.model").is_file():
        pytest.skip("a byte-level tokenizer has no such file")
    import sentencepiece

    other = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert other.get_piece_size() == len([i for i in trimmed.kept if i < 1500])
    for text in ("the garden is lovely", "Qwerty \u00fc \u6f22"):
        assert other.encode(text) == new.encode(text)


def test_a_sentencepiece_file_of_another_tokenizer_is_refused(made, tmp_path):
    _, _, trimmed, source, _ = made
    if not (source / "tokenizer.model").is_file():
        pytest.skip("a byte-level tokenizer has no such file")
    model = dict(trimmed.tokenizer["model"])
    words = list(model["vocab"])
    model["vocab"] = {w: i for i, w in enumerate(reversed(words))}
    wrong = replace(trimmed, tokenizer={**trimmed.tokenizer, "model": model})
    with pytest.raises(InputError, match=r"tokenizer\.model and tokenizer\.json disagree"):
        vocabulary._write_sentencepiece(source / "tokenizer.model", tmp_path / "tokenizer.model", wrong)


def test_ids_in_configurations_are_new(made):
    *_, trimmed, _, _ = made
    old = trimmed.kept[-1]
    new = trimmed.new_id[old]
    config = {
        "eos_token_id": [old, 10**6],
        "pad_token_id": old,
        "bos_token_id": None,
        "hidden_size": old,
        "text_config": {"image_token_index": old},
        "added_tokens_decoder": {str(old): {"content": "x"}, "999999": {"content": "y"}},
        "rows": [{"suppress_token_ids": [old]}],
    }
    assert vocabulary.renumbered(config, trimmed.new_id) == {
        "eos_token_id": [new],
        "pad_token_id": new,
        "bos_token_id": None,
        "hidden_size": old,
        "text_config": {"image_token_index": new},
        "added_tokens_decoder": {str(new): {"content": "x"}},
        "rows": [{"suppress_token_ids": [new]}],
    }


def test_room_is_filled_with_what_was_merged_first(made):
    whole, _, _, source, _ = made
    data = json.loads((source / "tokenizer.json").read_text())
    trimmed = vocabulary.trim(data, {}, tokens=600)
    assert len(trimmed.kept) == 640
    assert len(vocabulary.trim(data, {}, tokens=whole.vocab_size).kept) == whole.vocab_size


@pytest.mark.parametrize("tokens", [10, 10**6])
def test_a_number_that_makes_no_sense_is_refused(made, tokens):
    data = json.loads((made[3] / "tokenizer.json").read_text())
    with pytest.raises(UsageError, match=rf"a vocabulary of {tokens:,} tokens was asked for; this tokenizer has"):
        vocabulary.trim(data, {}, tokens=tokens)


def test_other_kinds_of_tokenizers_are_refused():
    with pytest.raises(UsageError, match="a tokenizer of the kind 'Unigram' cannot be trimmed"):
        vocabulary.trim({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, {}, tokens=None)
