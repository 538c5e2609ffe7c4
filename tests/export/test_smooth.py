"""Factors that move outliers into weights and leave the model as it is."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export import smooth
from edge.export.calibrate import Calibration
from edge.export.smooth import Factor

WINDOWS = Calibration(windows=(tuple(range(5, 69)),), sha256="5" * 64, source="test")


def test_a_factor_multiplies_rows_and_columns():
    matrix = np.ones((2, 3), np.float32)
    made = Factor(rows=np.array([1, 10], np.float32), columns=np.array([1, 2, 3], np.float32)).of(matrix)
    np.testing.assert_array_equal(made, [[1, 2, 3], [10, 20, 30]])
    np.testing.assert_array_equal(Factor(rows=np.array([2.0, 3.0])).of(np.ones(2)), [2, 3])
    np.testing.assert_array_equal(Factor().of(matrix), matrix)


def test_factors_are_remembered_beside_an_artifact(tmp_path):
    assert smooth.kept(tmp_path) == {}
    made = {"model.layers.0.mlp.up_proj.weight": Factor(np.arange(3.0), np.arange(2.0)), "gain": Factor(np.ones(2))}
    smooth.keep(tmp_path, made)
    found = smooth.kept(tmp_path)
    assert set(found) == set(made)
    for name, factor in made.items():
        for side in ("rows", "columns"):
            np.testing.assert_array_equal(getattr(found[name], side), getattr(factor, side))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Three queries to a value, heads wider than hidden size over heads, and channels far louder than others."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from edge.export.source import open_source
    from tests import checkpoint_parts as parts
    from tests.checkpoints import llama_3_2

    folder = tmp_path_factory.mktemp("loud")
    words = llama_3_2.SPECIAL
    parts.byte_level(
        folder, special=words, bos=words[0], eos=words[4], template=llama_3_2.TEMPLATE, cut=parts.BY_THREES
    )
    config = LlamaConfig(
        vocab_size=1024, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight[7] = 50.0
            layer.mlp.up_proj.weight[11] *= 40.0
    model.save_pretrained(folder)
    return open_source(folder)


@pytest.mark.runtime
def test_outliers_move_and_the_model_stays(checkpoint):
    made = smooth.factors(checkpoint, WINDOWS)
    assert len(made) == 2 * 9  # of each layer two gains and seven matrices
    gain = made["model.layers.0.input_layernorm.weight"].rows
    assert gain.argmin() == 7
    assert gain[7] < 0.5
    queries = made["model.layers.0.self_attn.q_proj.weight"].columns
    np.testing.assert_allclose(queries * gain, 1, rtol=1e-5)
    # The three queries of a value read it with one factor.
    out = made["model.layers.0.self_attn.o_proj.weight"].columns.reshape(2, 3, 32)
    assert (out == out[:, :1]).all()


@pytest.mark.runtime
def test_factors_that_change_the_model_are_not_used(checkpoint, monkeypatch):
    def wrong(*_, **__):
        yield "model.layers.0.mlp.up_proj.weight", Factor(rows=np.full(160, 2.0, np.float32))

    monkeypatch.setattr(smooth, "_pairs", wrong)
    assert smooth.factors(checkpoint, WINDOWS) == {}


@pytest.mark.runtime
def test_gains_are_left_alone_where_only_they_change_the_model(checkpoint, monkeypatch):
    pairs = smooth._pairs

    def half_wrong(checkpoint, squares, inputs, may):
        yield from pairs(checkpoint, squares, inputs, may)
        if "attention" in inputs:
            yield "model.norm.weight", Factor(rows=np.full(96, 2.0, np.float32))

    monkeypatch.setattr(smooth, "_pairs", half_wrong)
    made = smooth.factors(checkpoint, WINDOWS)
    assert len(made) == 2 * 4
    assert "model.layers.0.input_layernorm.weight" not in made


@pytest.mark.runtime
def test_only_the_inputs_that_are_asked_for_are_smoothed(checkpoint):
    made = smooth.factors(checkpoint, WINDOWS, inputs=("down",))
    assert sorted({name.split(".", 3)[3] for name in made}) == ["mlp.down_proj.weight", "mlp.up_proj.weight"]


@pytest.mark.runtime
def test_readers_that_may_not_be_multiplied_are_left_alone(checkpoint):
    made = smooth.factors(checkpoint, WINDOWS, may=lambda reader: "layers.0" not in reader and "k_proj" not in reader)
    assert sorted({name.split(".", 2)[2] for name in made}) == [
        "1.mlp.down_proj.weight", "1.mlp.gate_proj.weight", "1.mlp.up_proj.weight",
        "1.post_attention_layernorm.weight", "1.self_attn.o_proj.weight", "1.self_attn.v_proj.weight",
    ]  # fmt: skip


@pytest.mark.runtime
@pytest.mark.parametrize("kind", ["mixtral", "granite_moe"])
def test_experts_and_their_router_are_smoothed_together(kind, tmp_path):
    """In both layouts, each expert's matrices on their own and all in one tensor."""
    from edge.export import experts, litert_experts
    from edge.export.source import open_source
    from tests import parity

    checkpoint = open_source(parity.make(kind, tmp_path))
    made = smooth.factors(checkpoint, WINDOWS)
    layer = experts.layers(checkpoint)[0]
    gain = made["model.layers.0.post_attention_layernorm.weight"].rows
    np.testing.assert_allclose(made[layer.router].columns * gain, 1, rtol=1e-5)
    for e in range(experts.count(checkpoint.config)):
        gate, up, down = (made.get(key, Factor()) for key in layer.keys(e))
        np.testing.assert_allclose(gate.columns * gain, 1, rtol=1e-5)
        np.testing.assert_array_equal(up.columns, gate.columns)
        if down.columns is not None:  # an expert that no token came to has nothing to go by
            np.testing.assert_allclose(down.columns * up.rows, 1, rtol=1e-5)
    assert any(made.get(layer.keys(e)[2]) for e in range(experts.count(checkpoint.config)))
    joined = litert_experts.factors(made, checkpoint)
    for matrix in litert_experts.matrices(checkpoint):
        wanted = [made[key].of(part) for key, part in zip(matrix.keys, _parts(matrix, checkpoint), strict=True)]
        np.testing.assert_array_equal(joined[matrix.name].of(matrix.read(checkpoint)), np.concatenate(wanted))


def _parts(matrix, checkpoint):
    whole = matrix.read(checkpoint)
    return [whole] if matrix.down else np.split(whole, 2)


def test_a_source_that_does_not_fit_in_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(smooth.preflight, "holds_source", lambda checkpoint: False)
    assert smooth.factors(None, WINDOWS) == {}
