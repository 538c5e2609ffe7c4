"""Answers put into the words of a trimmed tokenizer: against what can be counted by hand and by force."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.export.distill import store, vocabulary
from edge.export.distill.translate import Words
from edge.progress import Silent
from edge.runtimes.tokenizer import Tokenizer
from tests import checkpoint_parts as parts


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def words(request, tmp_path_factory):
    """A tokenizer, the same without most of its words, and the way between them."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "trimmed"))
    if request.param == "sentencepiece":
        parts.sentencepiece(
            whole, special=(), eos="</s>", bos="<s>", template=parts.CHATML, kind="LlamaTokenizerFast", vocab_size=900
        )
    else:
        parts.byte_level(whole, special=("<|im_end|>",), eos="<|im_end|>", template=parts.CHATML, vocab_size=900)
    old = Tokenizer.load(whole)
    trimmed = vocabulary.trim(json.loads((whole / "tokenizer.json").read_text()), {}, tokens=512)
    vocabulary.write_side_files(whole, folder, trimmed)
    new = Tokenizer.load(folder)
    return old, new, Words(old, new)


def answers(ids, n_words, k, seed=0):
    """Records of random answers over a whole vocabulary, and their probabilities `(tokens, n_words)`."""
    import torch

    logits = torch.randn(len(ids), n_words, generator=torch.Generator().manual_seed(seed)) * 3
    return store.compress(ids, logits, k), logits.softmax(-1).numpy()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_text_is_the_same_text_in_pieces(words, data):
    old, new, between = words
    text = data.draw(st.sampled_from(parts.texts()))
    ids = old.encode(text)
    assert new.decode(between.text(ids)) == old.decode(ids)
    if between.agrees(ids):
        assert list(between.text(ids)) == new.encode(old.decode(ids))
    kept = [i for i in ids if len(between.text([i])) == 1]
    assert [new.decode(between.text([i])) for i in kept] == [old.decode([i]) for i in kept]


@pytest.mark.runtime
def test_a_piece_is_as_likely_as_all_words_that_begin_with_it(words):
    old, new, between = words
    ids = old.encode(parts.texts()[0])[:40]
    n = old.vocab_size
    rows, shares = answers(ids, n, k=n - 1)
    out = between.records(rows, k=new.vocab_size - 1)
    assert out["token"].tolist() == list(between.text(ids))
    at = -1
    for i, whole in enumerate(ids):
        pieces = between.text([whole])
        for j in range(at + 1, at + len(pieces)):  # within a word what follows is certain
            assert (out["ids"][j][0], out["logs"][j][0]) == (out["token"][j + 1], 0)
            assert out["logs"][j][1:].max() == out["rest"][j] == -6e4
        at += len(pieces)
        wanted = np.zeros(new.vocab_size)
        for word in range(n):
            wanted[between.text([word])[0]] += shares[i][word]
        found = np.zeros(new.vocab_size)
        found[out["ids"][at]] = np.exp(out["logs"][at].astype(float))
        assert np.allclose(found, wanted, atol=2e-3)
        assert np.isclose(found.sum() + np.exp(float(out["rest"][at])), 1, atol=1e-2)
    assert all(len(set(row.tolist())) == len(row) for row in out["ids"])


@pytest.mark.runtime
def test_what_does_not_fit_is_with_the_others(words):
    old, _, between = words
    ids = old.encode(parts.texts()[1])[:12]
    rows, _ = answers(ids, old.vocab_size, k=8)
    out = between.records(rows, k=4)
    totals = np.exp(out["logs"].astype(float)).sum(1) + np.exp(out["rest"].astype(float))
    assert np.allclose(totals, 1, atol=1e-2)
    assert (np.diff(out["logs"].astype(float), axis=1) <= 0).all()


@pytest.mark.runtime
def test_texts_that_are_cut_otherwise_are_left_out_and_a_whole_store_is_kept(words, tmp_path):
    import torch

    old, new, between = words
    some = [old.encode(text)[:30] for text in parts.texts()[:20]]
    some += [list(reversed(text)) for text in some]  # nonsense, whose pieces make other words

    def logits(asked):
        return [torch.zeros(len(text), old.vocab_size) for text in asked]

    made = store.build(tmp_path / "a", some, logits, k=8, vocab_size=old.vocab_size, progress=Silent())
    found = between.answers(made, tmp_path / "b", tmp_path / "a")
    assert len(found) == sum(map(between.agrees, some)) < len(made)
    assert found.vocab_size == new.vocab_size
    before = (tmp_path / "b" / "shard-00000.bin").stat().st_mtime_ns
    again = between.answers(made, tmp_path / "b", tmp_path / "a")
    assert (len(again), again.n_tokens) == (len(found), found.n_tokens)
    assert (tmp_path / "b" / "shard-00000.bin").stat().st_mtime_ns == before
