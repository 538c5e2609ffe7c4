"""Leaving experts out: which ones, what stays, and that the rest computes as before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.commands.export import _kept
from edge.errors import UsageError
from edge.export import keep_experts
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.experts import layers
from tests.tiny_moe import headers

TEXT = Calibration(((1, 2, 3),), "c" * 64, "test")


def test_the_experts_with_the_largest_weights_stay_in_their_order():
    tokens, weights = [9, 9, 9, 9], [0.1, 3.0, 0.2, 2.0]
    use = {0: np.array([tokens, weights]), 1: np.array([tokens, weights[::-1]])}
    assert keep_experts.choose(use, 2) == {0: [1, 3], 1: [0, 2]}
    assert keep_experts.choose(use, 3) == {0: [1, 2, 3], 1: [0, 1, 2]}


def test_experts_that_stay_take_the_first_numbers():
    [layer, _] = layers(headers("mixtral"))
    moved = keep_experts._moves(layer, [1, 3])
    old, new = (
        "model.layers.0.block_sparse_moe.experts.3.w2.weight",
        "model.layers.0.block_sparse_moe.experts.1.w2.weight",
    )
    assert moved[old] == new
    assert moved[old.replace("experts.3", "experts.0")] is None
    assert sorted(filter(None, moved.values())) == sorted(n for e in layer.experts[:2] for n in e)


@pytest.mark.parametrize("keep", [1, 4, 7])
def test_a_number_that_makes_no_sense_is_refused(keep):
    with pytest.raises(UsageError, match=rf"cannot keep {keep} of the 4 experts of tiny[\s\S]*keep 2 to 3"):
        keep_experts.check(headers("mixtral"), keep, TEXT)


def test_a_model_without_experts_is_refused():
    dense = replace(headers("mixtral"), config={"model_type": "llama"}, tensors={}, family="slm")
    with pytest.raises(UsageError, match="tiny has no experts to choose from: it is a slm"):
        keep_experts.check(dense, 2, TEXT)


def test_without_calibration_there_is_nothing_to_choose_by():
    with pytest.raises(UsageError, match="which experts matter is measured on calibration text"):
        keep_experts.check(headers("mixtral"), 2, None)


@pytest.mark.parametrize("wrong", ["2", "keep", "keep=", "keep=two", "keep=0", "drop=1"])
def test_the_option_wants_keep_and_a_number(wrong):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="wanted keep=N"):
        _kept(wrong)
    assert _kept("keep=3") == 3


@pytest.mark.runtime
@pytest.mark.parametrize("model_type", ["mixtral", "granitemoe"])
def test_what_stays_computes_as_if_the_others_could_not_be_chosen(tiny_moe, tmp_path, monkeypatch, model_type):
    """Both layouts: separate matrices, and stacks of all experts."""
    import torch

    from edge.export.reference import load_model
    from edge.export.sources.folder import open_folder

    checkpoint: Checkpoint = tiny_moe(model_type)
    kept = {0: [0, 2, 3], 1: [1, 2, 3]}
    keep_experts.write(checkpoint, kept, 3, tmp_path)
    model, part = load_model(checkpoint), load_model(open_folder(tmp_path))

    def without(layer: int, module, inputs, output):
        scores = torch.full_like(output[0], -torch.inf)
        scores[:, kept[layer]] = output[0][:, kept[layer]]
        best, chosen = scores.softmax(-1).topk(2)
        return output[0], best / best.sum(-1, keepdim=True), chosen

    for i, layer in enumerate(model.model.layers):
        block = getattr(layer, "mlp", None) or layer.block_sparse_moe
        router = getattr(block, "gate", None) or block.router
        router.register_forward_hook(lambda m, x, y, i=i: without(i, m, x, y))
    ids = torch.arange(5, 105)[None]
    with torch.inference_mode():
        wanted, found = model(ids).logits, part(ids).logits
    assert float((found - wanted).square().sum() / wanted.square().sum()) < 1e-10


@pytest.mark.runtime
def test_a_bundle_of_fewer_experts_says_what_they_cost(tiny_moe, tmp_path):
    from edge.export import pipeline

    [done] = pipeline.export(
        tiny_moe("mixtral").folder, tmp_path, quantization="f32", keep_experts=3, context_length=256
    )
    assert done.folder.name == "mixtral-3-experts-gguf-f32"
    cost = done.bundle.quality["experts_kept"]
    assert (cost["keep"], cost["of"]) == (3, 4)
    assert 0.75 < cost["share_of_use"] < 1
    assert cost["mean_kld"] > 0.001
    assert done.bundle.quality["logits"]["nmse"] < 1e-6  # to the model of three experts
    assert "experts kept, KLD to the whole model" in done.verdict.table()
