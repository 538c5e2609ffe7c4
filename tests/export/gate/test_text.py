"""Tokenizers that are the same, that differ, and that leave composing characters to others."""

from __future__ import annotations

import json

import pytest

from edge.export.gate import text
from edge.runtimes.tokenizer import Tokenizer
from tests.tiny_bundle import tiny_tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A packed tokenizer that composes, and a source that is the same one."""
    made = json.loads(tiny_tokenizer())
    made["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    inner = Tokenizer.load(tmp_path)

    class Source:
        all_special_tokens = ()

        def __call__(self, string, add_special_tokens):
            return {"input_ids": inner.encode(string)}

    monkeypatch.setattr(text, "load_tokenizer", lambda _: Source())
    return tmp_path


def plain(folder):
    """The same tokenizer, but for composing."""
    made = json.loads((folder / "tokenizer.json").read_text())
    made["normalizer"] = None
    other = folder / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text(json.dumps(made))
    return Tokenizer.load(other)


def test_an_embedded_tokenizer_may_leave_composing_to_others_and_the_record_says_so(folder):
    embedded = plain(folder)
    record, failures = text.tokenizer(None, folder, lambda strings: [embedded.encode(s) for s in strings])
    assert failures == []
    assert record["embedded_different"] == 0
    assert record["embedded_composed"] > 0


def test_an_embedded_tokenizer_with_other_ids_is_a_failure(folder):
    _, failures = text.tokenizer(None, folder, lambda strings: [[0] for _ in strings])
    assert failures[0].startswith("the embedded tokenizer gives other ids for ")
