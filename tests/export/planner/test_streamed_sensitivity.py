"""What matters in a source that does not fit in memory is what matters in one that does."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from edge.export import calibrate, preflight, streamed
from edge.export.planner import sensitivity
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.progress import Silent
from edge.runtimes.tokenizer import Tokenizer
from tests import parity

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize("kind", ["smollm2", "phi_3"])  # the embedding is the head, or is not
def test_it_is_measured_layer_by_layer_too(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "_WINDOWS", 3)
    checkpoint = open_source(parity.make(kind, tmp_path))
    text = calibrate.default_calibration(Tokenizer.load(checkpoint.folder), None)
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: None)
    wanted = sensitivity._measured(checkpoint, text, Silent())
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 1)
    model = load_model(checkpoint)
    assert streamed.is_streamed(model)
    monkeypatch.setattr(sensitivity, "running", lambda *_: model)
    found = sensitivity._measured(checkpoint, text, Silent())
    assert all(p.is_meta for p in model.parameters())
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.allclose(found[name], values, rtol=1e-2, atol=1e-3 * np.abs(values).max()), name


def test_one_layer_is_in_memory_on_the_way_back(tmp_path, monkeypatch):
    checkpoint = open_source(parity.make("smollm2", tmp_path))
    monkeypatch.setattr(preflight, "available_ram_bytes", lambda *_: 1)
    model = load_model(checkpoint)
    alive: dict[int, tuple[str, weakref.ref]] = {}
    most = 0

    def parameter(name, values):
        nonlocal most
        made = torch.nn.Parameter(values, requires_grad=values.dim() == 2)
        made.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)) if made.requires_grad else None
        alive[len(alive)] = (name, weakref.ref(made))
        layers = {n.split(".")[2] for n, ref in alive.values() if ref() is not None and ".layers." in n}
        most = max(most, len(layers))
        return made

    with streamed.changed(model, parameter, recomputed=True):
        model(input_ids=torch.tensor([[300, 301, 302]]), use_cache=False).logits.sum().backward()
    assert most == 1
    assert len([n for n, _ in alive.values() if n.endswith("0.mlp.up_proj.weight")]) == 2
