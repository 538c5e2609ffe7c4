"""A KV cache of 8 bits: how its scales are chosen, which layers go without, and that it still computes the model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import edge
from edge import bundle as bundles
from edge.errors import EdgeError, InputError, UsageError
from edge.export import onnx_cache, pipeline
from edge.export.formats import gguf, onnx
from edge.progress import Silent
from edge.runtimes.engines import gguf as gguf_engine
from tests import parity
from tests.tiny_bundle import tiny_bundle


def test_a_scale_gives_up_a_lone_outlier_for_all_the_others():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1, 40_000, 2)).astype(np.float32)
    rows[0, 0, 1] = 7.0
    step = onnx_cache.best_scale(rows)
    assert step.shape == (1, 2)
    assert step[0, 1] < 7.0 / 127 * 0.95
    for clip in (1.0, 0.5):  # neither all of the range nor half of it is better
        other = np.abs(rows).max(1) * clip / 127
        assert _error(rows, step) <= _error(rows, other)
    assert np.abs(_held(step).rounded(rows)).max() <= 128 * step.max()


def _held(step):
    return onnx_cache.Held(step, np.zeros_like(step))


def _error(rows, step):
    return float(((_held(step).rounded(rows) - rows) ** 2).sum())


def test_a_channel_of_zeros_has_a_scale_too():
    assert np.isfinite(onnx_cache.best_scale(np.zeros((1, 8, 3), np.float32))).all()


@pytest.mark.parametrize(
    ("cost", "kept"),
    [
        ({0: 1e-4, 1: 1e-4}, ()),
        ({0: 5e-5, 1: 9e-4, 2: 5e-5, 3: 5e-5}, (1,)),
        (dict.fromkeys(range(8), 1.0), (0, 1)),  # never more than a quarter
        ({}, ()),
    ],
)
def test_the_costliest_layers_keep_their_cache(cost, kept):
    assert onnx_cache.wide(cost) == kept


class Remembering:
    """Logits that are the sum of the first layer's cache; the second layer's is read by nobody."""

    context_length = 8

    def __init__(self):
        names = ("past_key_values.0.key", "past_key_values.1.value")
        self.cache = {name: np.zeros((1, 1, 8, 2), np.float32) for name in names}
        self.position = 0

    def rewind(self, n):
        self.position = n

    def feed(self, tokens):
        return self.feed_all(tokens)[-1]

    def feed_all(self, tokens):
        out = np.zeros((len(tokens), 2), np.float32)
        for i, token in enumerate(tokens):
            for held in self.cache.values():
                held[0, 0, self.position] = token + 0.3
            self.position += 1
            out[i, 0] = self.cache["past_key_values.0.key"][0, 0, : self.position].sum()
        return out / 20


def test_what_rounding_a_layer_costs_is_seen_in_what_follows():
    session = Remembering()
    windows = [(1, 2, 3, 4), (4, 3, 2, 1)]
    ways = {name: _held(np.full((1, 2), 2.0, np.float32)) for name in session.cache}
    cost = onnx_cache.costs(session, ways, windows, Silent())
    assert cost[0] > 1e-5
    assert cost[1] == 0
    # What was rounded has been put back.
    assert session.feed_all([1])[0, 0] == pytest.approx(Remembering().feed_all([1])[0, 0])


def test_keys_and_values_are_looked_at_with_their_windows():
    session = Remembering()
    ways = onnx_cache.ways_to_hold(session, [(1, 2, 3), (1, 100)], Silent())
    assert set(ways) == set(session.cache)
    key, value = ways.values()
    assert key.step == pytest.approx(np.full((1, 2), 100.3 / 127), rel=0.01)
    assert not key.less.any()
    # Values are held less those of the first token, which are exact then.
    assert value.less == pytest.approx(np.full((1, 2), 1.3))
    assert value.step == pytest.approx(np.full((1, 2), 99 / 127), rel=0.01)
    assert (value.rounded(np.full((1, 1, 2), 1.3, np.float32)) == np.float32(1.3)).all()
    assert session.position == 0


def test_a_graph_with_another_attention_is_refused():
    import onnx as library

    graph = SimpleNamespace(nodes=[], weights={}, model=library.ModelProto())
    with pytest.raises(EdgeError, match="no attention that could hold its keys and values in 8 bits"):
        onnx_cache.narrow(graph, {}, ())
    with pytest.raises(EdgeError, match="is no part of a KV cache as edge writes it"):
        onnx_cache._layer("past.0")


def test_what_cannot_be_is_refused_before_any_work():
    with pytest.raises(UsageError, match="there is no KV cache of '4bit'"):
        pipeline.export("smollm2", kv="4bit")
    with pytest.raises(UsageError, match="tflite has no KV cache of 8 bits"):
        pipeline.export("smollm2", formats=["gguf", "tflite"], kv="8bit")
    narrow = SimpleNamespace(name="odd", text_config={"head_dim": 48})
    with pytest.raises(UsageError, match=r"its heads are 48 wide, and llama\.cpp rounds in blocks of 32"):
        gguf.narrow_cache(None, None, narrow, None, calibration=None)
    with pytest.raises(UsageError, match="are chosen on calibration text"):
        onnx.narrow_cache(None, None, narrow, None, calibration=None)


def test_a_manifest_that_asks_for_an_unknown_cache_is_refused(tmp_path):
    bundle = tiny_bundle(tmp_path)
    assert gguf_engine.cache_type(replace(bundle, quantization="q4_0")) == "f16"
    assert gguf_engine.cache_type(replace(bundle, quantization="f32")) == "f32"
    assert gguf_engine.cache_type(replace(bundle, plan={"kv_cache": {"type": "q8_0"}})) == "q8_0"
    with pytest.raises(InputError, match="asks for a KV cache of type 'q2'"):
        gguf_engine.cache_type(replace(bundle, plan={"kv_cache": {"type": "q2"}}))


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("maker", "format_name", "quantization", "most"),
    [("llama_3_2", "gguf", "f16", 0.54), ("llama_3_2", "onnx", "fp32", 0.3), ("qwen3", "onnx", "fp32", 0.3)],
    ids=["gguf", "onnx, one product", "onnx, a product for values"],
)
def test_it_takes_half_the_memory_or_less_and_computes_the_model(tmp_path, maker, format_name, quantization, most):
    from edge.export.reference import load_model
    from edge.export.source import open_source

    checkpoint = parity.make(maker, tmp_path)
    options = {"formats": [format_name], "quantization": quantization, "context_length": 64, "gate": False}
    [wide] = edge.export(checkpoint, tmp_path / "wide", **options)
    [narrow] = edge.export(checkpoint, tmp_path / "narrow", kv="8bit", **options)
    assert narrow.folder.name == f"{maker}-kv8-{format_name}-{quantization}"
    sizes = [bundles.read(done.folder).memory["kv_bytes_per_token"] for done in (wide, narrow)]
    assert sizes[1] <= most * sizes[0]
    model = load_model(open_source(checkpoint))
    assert parity.logits_nmse(model, narrow.folder, 64) < 1e-3
    with edge.open(narrow.folder) as opened:
        session = opened.session
        whole = session.feed_all([5, 6, 7, 8]).copy()
        session.rewind(2)
        np.testing.assert_allclose(session.feed_all([7, 8]), whole[2:], atol=2e-3)


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("format_name", "quantization", "kv", "sizes"),
    [("gguf", "q8_0", "8bit", [4, 8]), ("onnx", "int8", "8bit", [2, 4, 8]), ("onnx", "int8", None, [])],
)
def test_what_holds_8_bits_can_look_ahead(tmp_path, format_name, quantization, kv, sizes):
    """Whether to the bit depends on the processor, which each way has to show before it is used."""
    checkpoint = parity.make("llama_3_2", tmp_path)
    options = {"formats": [format_name], "quantization": quantization, "context_length": 64, "gate": False}
    [done] = edge.export(checkpoint, tmp_path / "made", kv=kv, **options)
    with edge.open(done.folder) as opened:
        session = opened.session
        assert [way.size for way in session.ways] == sizes
        if not sizes:
            with pytest.raises(UsageError, match="cannot look 2 tokens ahead here"):
                session.peek([5, 6])
            return
        words = list(range(5, 17))
        singles = np.stack([session.feed([word]).copy() for word in words])
        session.rewind(0)
        session.feed(words[:2])
        found = session.peek(words[2:6]).copy()
        assert session.position == 2
        np.testing.assert_allclose(found, singles[2:6], atol=2e-3)
        # Two are taken, and what was peeked at behind them is forgotten.
        session.take()
        session.take()
        assert session.position == 4
        after = session.feed([words[4]]).copy()
        np.testing.assert_allclose(after, singles[4], atol=2e-3)
        with pytest.raises(UsageError, match="nothing was looked at ahead, or something else was fed since"):
            session.take()
        with pytest.raises(UsageError, match="cannot look 5 tokens ahead here"):
            session.peek(words[:5])
        session.peek(words[5:9])
        session.rewind(0)
        np.testing.assert_allclose(session.feed(words), singles[-1], atol=2e-3)
        session.rewind(0)
        for word in words * 5:
            session.feed([word])
        assert [way.size for way in session.ways] == [n for n in sizes if n <= 4]  # so many are left
