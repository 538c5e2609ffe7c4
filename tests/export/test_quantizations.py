"""Every quantization of every format makes a file that its runtime loads, and that still computes the model."""

from __future__ import annotations

import pytest

import edge
from edge.export.formats import tflite
from edge.find import load, names
from tests import checkpoint_parts, parity
from tests.checkpoints import llama_3_2

# The error of logits (NMSE) that rounding random weights of two layers may cause. Another model's logits have about 2,
# none at all have 1: what is broken lies above, and how good a quantization is says the gate, on trained weights.
_MOST = {32: 1e-6, 16: 1e-3, 8: 1e-2, 6: 2e-2, 5: 5e-2, 4: 0.3, 3: 0.5, 2: 0.7}
_ALL = [(f, q) for f in names("edge.export.formats") for q in load("edge.export.formats", f).QUANTIZATIONS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Llama of a width that is no multiple of 128 or 256, as SmolLM2-135M's 576 is none."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("narrow")
    words = llama_3_2.SPECIAL
    ids = checkpoint_parts.byte_level(
        folder, special=words, bos=words[0], eos=words[4], template=llama_3_2.TEMPLATE, cut=checkpoint_parts.BY_THREES
    )
    config = LlamaConfig(
        vocab_size=1024, hidden_size=320, intermediate_size=832, num_hidden_layers=2, num_attention_heads=5,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=ids[words[0]], eos_token_id=ids[words[4]],
    )  # fmt: skip
    checkpoint_parts.write(folder, config)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    from edge.export.reference import load_model
    from edge.export.source import open_source

    return load_model(open_source(checkpoint))


@pytest.mark.runtime
@pytest.mark.parametrize(("format_name", "quantization"), _ALL)
def test_a_quantization_computes_the_model(checkpoint, model, tmp_path, monkeypatch, format_name, quantization):
    monkeypatch.setattr(tflite, "PREFILLS", (16,))
    [done] = edge.export(
        checkpoint, tmp_path, formats=[format_name], quantization=quantization, context_length=128, gate=False
    )
    bits = load("edge.export.formats", format_name).QUANTIZATIONS[quantization].bits
    assert parity.logits_nmse(model, done.folder, 128) <= _MOST[bits]
