"""The built-in model that sees: put together to the byte, and it answers questions about pictures it never saw."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.errors import InputError
from edge.export.source import open_source
from edge.export.zoo import smollm2_vision as zoo
from edge.readers import safetensors


def test_adapters_are_merged_without_a_matrix_library_and_right():
    rng = np.random.default_rng(0)
    weight, down, up = (rng.normal(size=s).astype(np.float32) for s in ((6, 5), (2, 5), (6, 2)))
    merged = zoo.merge(weight, down, up)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, weight + up @ down, rtol=1e-6, atol=1e-6)


def test_new_rows_of_the_embedding_are_small_but_not_nothing():
    embedding = np.random.default_rng(0).normal(size=(49152, 2)).astype(np.float32)
    wide = zoo.widen(embedding)
    assert wide.shape == (zoo.VOCAB_SIZE, 2)
    assert np.array_equal(wide[:49152], embedding)
    assert 0 < np.abs(wide[49152:]).max() < 0.05


def test_the_adapter_is_small_and_in_float16():
    header = safetensors.read_header(zoo.ADAPTER / "adapter.safetensors")
    assert {t.dtype for t in header.tensors.values()} == {"F16"}
    assert (zoo.ADAPTER / "adapter.safetensors").stat().st_size < 7e6


def test_other_weights_than_those_scored_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="not the weights that were scored"):
        zoo._check(tmp_path / "model.safetensors")


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
