"""What one token reads, by rules that the names of tensors decide."""

import dataclasses
import json

import pytest

from edge.runtimes import traffic, weights
from edge.runtimes.weights import Weight
from tests.tiny_bundle import tiny_bundle

BLOCK = [Weight("blk.0.attn_q.weight", "Q4_K", 1000), Weight("output_norm.weight", "F32", 8)]


@pytest.fixture
def of(tmp_path, monkeypatch):
    bundle = dataclasses.replace(tiny_bundle(tmp_path), memory={"kv_bytes_per_token": 64})

    def found(*tensors, config=None, memory=None, source=None):
        monkeypatch.setattr("edge.runtimes.weights.echo.read", lambda _path: tuple(tensors))
        (tmp_path / "config.json").write_text(json.dumps(config or {}))
        changed = dataclasses.replace(bundle, memory=memory or bundle.memory, source=source or bundle.source)
        return traffic.of(tmp_path, changed)

    return found


def test_an_embedding_is_read_by_rows_unless_it_is_the_head_too(of):
    tied = of(Weight("token_embd.weight", "Q8_0", 500), *BLOCK)
    assert tied.weights_bytes == 1508
    assert tied.left_out == {}
    apart = of(Weight("token_embd.weight", "Q8_0", 500), Weight("output.weight", "Q6_K", 400), *BLOCK)
    assert apart.weights_bytes == 1408
    assert apart.left_out == {"embedding": 500}
    assert apart.by_type == {"F32": 8, "Q4_K": 1000, "Q6_K": 400}


def test_of_experts_the_chosen_count_where_the_rest_can_be_skipped(of):
    experts = Weight("blk.0.ffn_up_exps.weight", "Q4_K", 800, chosen_only=True)
    config = {"num_local_experts": 8, "num_experts_per_tok": 2}
    found = of(experts, *BLOCK, config=config)
    assert found.weights_bytes == 1008 + 200
    assert found.left_out == {"experts": 600}
    assert of(dataclasses.replace(experts, chosen_only=False), *BLOCK, config=config).weights_bytes == 1808
    assert of(experts, *BLOCK, config={"text_config": config}).weights_bytes == 1208
    assert of(experts, *BLOCK).weights_bytes == 1808


def test_tables_of_angles_are_read_by_rows(of):
    assert of(Weight("model.rotary_emb.cos_cache", "float32", 4096), *BLOCK).weights_bytes == 1008


def test_what_the_runtime_unpacks_is_four_bytes_a_parameter(of):
    found = of(*BLOCK, memory={"unpacked_bytes": 9}, source={"parameters": 1000})
    assert found.weights_bytes == 4000


def test_every_token_in_the_context_adds_its_keys_and_values(of):
    found = of(*BLOCK)
    assert found.at(0) == 1008
    assert found.at(100) == 1008 + 6400
    assert found.record()["kv_bytes_per_token"] == 64


def test_a_header_that_tells_nothing(of):
    assert of() is None


def test_every_engine_tells_its_weights():
    from edge.find import load, names

    for name in names("edge.runtimes.engines"):
        assert callable(load("edge.runtimes.weights", name).read)
    assert weights.Weight("x", "F32", 4).chosen_only is False
