"""TFLite graphs that see only the first rows of the cache: which are made, and that they compute the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import edge
from edge.export.formats import tflite
from edge.export.source import open_source
from edge.readers.tflite import read
from edge.runtimes import ahead, litert
from edge.runtimes.engines.tflite import TfliteSession
from edge.runtimes.model import open_bundle
from edge.runtimes.session import Sampling
from tests.checkpoints import gemma_3, llama_3_2, mixtral

PROMPT = list(range(40, 140))


@pytest.mark.parametrize(
    ("context_length", "graphs"),
    [
        (50, {50: []}),
        (512, {512: [64]}),
        (2048, {512: [64], 2048: [64]}),
        (4096, {512: [64], 2048: [64], 4096: [64]}),
    ],
)
def test_windows_are_four_times_as_far_each(context_length, graphs):
    assert tflite._graphs(SimpleNamespace(config={}), context_length) == graphs


def test_rows_of_a_picture_that_see_each_other_have_a_prefill_that_sees_everything():
    gemma = SimpleNamespace(config={"mm_tokens_per_image": 256})
    assert tflite._graphs(gemma, 2048) == {512: [64], 2048: [64, 256]}


@pytest.mark.parametrize(("context_length", "ahead"), [(4, None), (5, 4), (4096, 4)])
def test_graphs_look_ahead_where_there_is_room_for_it(context_length, ahead):
    assert tflite._ahead(SimpleNamespace(config={}, model_type="llama"), context_length) == ahead


@pytest.mark.runtime
def test_no_graph_looks_ahead_over_routed_experts(tmp_path):
    mixtral.make(tmp_path)
    assert tflite._ahead(open_source(str(tmp_path)), 512) is None


def export(maker, tmp_path, monkeypatch, quantization):
    monkeypatch.setattr(tflite, "PREFILLS", (16,))
    monkeypatch.setattr(tflite, "NEAR", (64,))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    maker.make(checkpoint)
    [done] = edge.export(
        checkpoint, tmp_path, formats=["tflite"], quantization=quantization, context_length=160, gate=False
    )
    return done.folder


@pytest.mark.runtime
@pytest.mark.parametrize("maker", [llama_3_2, gemma_3], ids=["everything", "a sliding window"])
def test_near_graphs_compute_what_those_that_see_everything_compute(maker, tmp_path, monkeypatch):
    folder = export(maker, tmp_path, monkeypatch, "fp32")
    signatures = read(folder / "model.tflite").signatures
    assert {"near_64_decode", "near_64_prefill_16", "near_64_ahead_4", "ahead_4"} < set(signatures)
    with open_bundle(folder) as model:
        ours = model.session
        near = ours.feed_all(PROMPT).copy()
        assert np.array_equal(_ahead(ours), near)
        plain = {key: s for key, s in signatures.items() if not litert.near_of(key)}
        far = TfliteSession(ours._runner, plain, context_length=160)
        for name, rows in (("one by one", far.feed_all(PROMPT)), ("in prefills", _all_at_once(ours))):
            assert np.square(rows[-1] - near[-1]).sum() <= 1e-9 * np.square(near[-1]).sum(), name
        far.rewind(0)
        assert np.abs(far.feed_all(PROMPT) - near).max() <= 1e-4 * np.abs(near).max()


def _ahead(session):
    """The logits after every token, some at a time."""
    session.rewind(0)
    rows = []
    while len(rows) < len(PROMPT):
        part = PROMPT[len(rows) : len(rows) + max((way.size for way in session.ways), default=1)]
        if len(part) == 1:
            rows.append(session.feed(part).copy())
            continue
        rows += list(session.peek(part).copy())
        for _ in part:
            session.take()
    return np.stack(rows)


def _all_at_once(session):
    session.rewind(0)
    return session.feed(PROMPT)[None]


@pytest.mark.runtime
@pytest.mark.parametrize(("quantization", "near"), [("int8", True), ("int8-weights", False)])
def test_weights_that_are_unpacked_for_every_graph_have_no_near_ones(tmp_path, monkeypatch, quantization, near):
    folder = export(llama_3_2, tmp_path, monkeypatch, quantization)
    made = read(folder / "model.tflite").signatures
    assert {"decode", "prefill_16"} <= set(made)
    assert any(litert.near_of(key) for key in made) is near
    assert any(litert.is_ahead(key) for key in made) is near
    monkeypatch.setattr(ahead, "_SHARE", 1.0)  # answers are short here
    with open_bundle(folder) as model:
        assert np.isfinite(model.session.feed(PROMPT)).all()
        if near:
            model.session.rewind(0)
            assert np.array_equal(model.session.feed_all(PROMPT), _ahead(model.session))
            _answers_are_the_same(model)


def _answers_are_the_same(model):
    """With guesses and without; a model of random weights soon repeats itself, so that guesses come true."""
    accepted = 0
    for temperature in (0, 0.1):
        sampling = Sampling(max_tokens=100, temperature=temperature, seed=1)
        found = []
        for looks_up in (True, False):
            model.looks_up = looks_up
            model.session.rewind(0)
            model.hold([])
            found.append([p.token_id for p in model.generate_ids(PROMPT[:40], sampling)])
            accepted += model.stats.accepted_tokens
        assert found[0] == found[1]
    assert accepted > 20
