"""A source read layer by layer computes what the source in memory computes, and keeps nothing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import EdgeError, UsageError
from edge.export import calibrate, order, preflight, reference, verify
from edge.export.source import open_source
from edge.progress import Silent
from tests import parity


@pytest.fixture(scope="module", params=["gemma_3", "phi_3"])
def checkpoint(request, tmp_path_factory):
    return open_source(parity.make(request.param, tmp_path_factory.mktemp("streamed")))


@pytest.fixture
def crowded(monkeypatch):
    """A machine that cannot hold the source."""
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 1)


@pytest.mark.runtime
def test_its_logits_are_the_same_and_its_weights_are_gone(checkpoint, crowded, monkeypatch):
    windows = [tuple(range(300, 340)), tuple(range(400, 410)), tuple(range(310, 360))]
    streamed = verify._Reference(checkpoint, windows)
    found = [streamed.logits(w) for w in windows]
    assert all(p.is_meta for p in streamed.model.parameters())
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: None)
    whole = verify._Reference(checkpoint, windows)
    for window, logits in zip(windows, found, strict=True):
        wanted = whole.logits(window)
        assert logits.shape == wanted.shape
        assert np.abs(logits - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.runtime
def test_a_model_that_is_not_its_tensors_is_refused(checkpoint, crowded):
    name = next(n for n in checkpoint.tensors if n.endswith("o_proj.weight"))
    other = replace(checkpoint, tensors={n: t for n, t in checkpoint.tensors.items() if n != name})
    with pytest.raises(EdgeError, match=f"cannot be run layer by layer: its parameter {name}"):
        reference.causal_lm(other)


def dense(n, family="llm", layers=4):
    """A checkpoint of n parameters, half of them in its layers."""
    info = SimpleNamespace(shape=(n // 2,))
    each = SimpleNamespace(shape=(n // 2 // layers,))
    tensors = {"model.embed_tokens.weight": info, **{f"model.layers.{i}.mlp.w": each for i in range(layers)}}
    return SimpleNamespace(n_parameters=n, family=family, tensors=tensors, text_config={"vocab_size": 1000})


def test_the_preflight_knows_that_large_sources_are_streamed(monkeypatch):
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 24 << 30)
    small, large = dense(10**9), dense(7 * 10**9, layers=1000)
    assert preflight.holds_source(small)
    assert not preflight.holds_source(large)
    assert preflight.largest_layer(large) == 35 * 10**8
    assert preflight.gate_need(small).ram_bytes > 4 * 10**9
    assert preflight.gate_need(dense(7 * 10**9)).ram_bytes == preflight._STREAMED_BYTES + 8 * 35 * 10**8
    assert preflight.gate_need(large).time_s > 60
    for family in ("moe", "vlm"):
        assert preflight.gate_need(dense(7 * 10**9, family)).ram_bytes > 28 * 10**9


def test_calibration_is_counted_without_the_gate_too(monkeypatch):
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 24 << 30)
    assert preflight.calibration_need(dense(10**9)).ram_bytes > 4 * 10**9
    large = dense(7 * 10**9, layers=1000)
    assert preflight.calibration_need(large).time_s > 60
    assert preflight.calibration_need(large).ram_bytes == preflight.gate_need(large).ram_bytes


@pytest.mark.runtime
def test_calibration_measures_what_it_measures_in_memory(checkpoint, crowded, monkeypatch):
    windows = (tuple(range(300, 340)), tuple(range(400, 410)), tuple(range(310, 360)))
    texts = calibrate.Calibration(windows, "", "")
    streamed = calibrate._measure(checkpoint, texts, Silent())
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: None)
    whole = calibrate._measure(checkpoint, texts, Silent())
    assert set(streamed) == set(whole) != set()
    for name, wanted in whole.items():
        assert np.allclose(streamed[name], wanted, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize(("quantization", "refused"), [("int4", True), ("int4-mixed", True), ("int4-hqq-32", False)])
def test_rounding_that_carries_errors_over_wants_the_source_in_memory(monkeypatch, quantization, refused):
    job = order.job_of("onnx", quantization)
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 24 << 30)
    order.refuse_calibration(dense(10**9), job)
    with (
        pytest.raises(UsageError, match="must be in memory: 28 GB in float32 are more than half of what is available")
        if refused
        else nullcontext()
    ):
        order.refuse_calibration(dense(7 * 10**9), job)
