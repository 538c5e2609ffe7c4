"""What is known about the experts of a checkpoint, and what is refused when one is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.errors import InputError
from edge.export import experts
from edge.export.families import moe
from tests.tiny_moe import headers

TYPES = sorted(experts.NAMINGS)


@pytest.mark.parametrize("model_type", TYPES)
def test_every_expert_and_router_of_a_whole_checkpoint_is_found(model_type):
    checkpoint = headers(model_type)
    moe.check(checkpoint)
    names = [name for layer in experts.layers(checkpoint) for name in layer.names]
    assert sorted(names) == sorted(checkpoint.tensors)
    assert len(names) == len(set(names))
    assert moe.label(checkpoint) == "moe"


def test_the_family_knows_the_layout_of_every_type_it_lists():
    assert sorted(moe.MODEL_TYPES) == TYPES


@pytest.mark.parametrize("model_type", TYPES)
def test_half_of_four_experts_are_active_with_two_for_each_token(model_type):
    facts = moe.facts(headers(model_type))
    router = 2 * 4 * 64
    assert facts == {
        "experts": 4,
        "experts_per_token": 2,
        "layers_with_experts": 2,
        "active_parameters": router + 2 * 2 * 3 * 64 * 96,
    }


def test_dense_layers_between_have_no_experts():
    found = experts.layers(headers("qwen3_moe", mlp_only_layers=[0]))
    assert [layer.index for layer in found] == [1]
    found = experts.layers(headers("qwen3_moe", decoder_sparse_step=2))
    assert [layer.index for layer in found] == [1]


@pytest.mark.parametrize(
    ("model_type", "weights_add_up"),
    [("mixtral", True), ("granitemoe", True), ("qwen3_moe", True), ("olmoe", False)],
)
def test_whether_weights_add_up_is_the_configurations_word(model_type, weights_add_up):
    checkpoint = headers(model_type, norm_topk_prob=weights_add_up)
    assert experts.normalized(checkpoint.config) is weights_add_up


@pytest.mark.parametrize("model_type", TYPES)
def test_a_missing_router_is_named(model_type):
    checkpoint = headers(model_type)
    router = experts.layers(checkpoint)[1].router
    rest = {k: v for k, v in checkpoint.tensors.items() if k != router}
    with pytest.raises(InputError, match=f"layer 1 of tiny lacks its router: there is no tensor {router}"):
        moe.check(replace(checkpoint, tensors=rest))


def test_a_router_with_a_missing_expert_is_refused():
    checkpoint = headers("mixtral")
    lost = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    rest = {k: v for k, v in checkpoint.tensors.items() if k != lost}
    with pytest.raises(
        InputError, match=rf"layer 1 of tiny lacks expert 2: there is no tensor {lost} \(4 experts wanted\)"
    ):
        moe.check(replace(checkpoint, tensors=rest))


def test_missing_stacked_experts_are_named():
    checkpoint = headers("granitemoe")
    lost = "model.layers.0.block_sparse_moe.output_linear.weight"
    rest = {k: v for k, v in checkpoint.tensors.items() if k != lost}
    with pytest.raises(InputError, match="lacks its experts"):
        moe.check(replace(checkpoint, tensors=rest))


def test_a_router_of_another_number_of_experts_is_refused():
    checkpoint = headers("olmoe")
    router = experts.layers(checkpoint)[0].router
    short = replace(checkpoint.tensors[router], shape=(3, 64))
    with pytest.raises(InputError, match=r"chooses between 3 experts, config\.json says 4"):
        moe.check(replace(checkpoint, tensors={**checkpoint.tensors, router: short}))


def test_stacked_experts_of_another_number_are_refused():
    checkpoint = headers("granitemoe")
    name = "model.layers.0.block_sparse_moe.input_linear.weight"
    short = replace(checkpoint.tensors[name], shape=(3, 192, 64))
    with pytest.raises(InputError, match=r"holds 3 experts, config\.json says 4"):
        moe.check(replace(checkpoint, tensors={**checkpoint.tensors, name: short}))


def test_experts_of_different_sizes_are_refused():
    checkpoint = headers("mixtral")
    name = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    short = replace(checkpoint.tensors[name], shape=(64, 32))
    with pytest.raises(InputError, match="experts of layer 0 of tiny have different sizes"):
        moe.check(replace(checkpoint, tensors={**checkpoint.tensors, name: short}))


@pytest.mark.parametrize("wrong", [0, None, "four", True])
def test_a_configuration_without_a_number_of_experts_is_refused(wrong):
    checkpoint = headers("mixtral")
    with pytest.raises(InputError, match="wanted a whole number above 0"):
        moe.check(replace(checkpoint, config={**checkpoint.config, "num_local_experts": wrong}))


@pytest.mark.parametrize("wrong", [0, 5, None])
def test_more_experts_for_each_token_than_there_are_is_refused(wrong):
    checkpoint = headers("mixtral", num_experts_per_tok=wrong)
    with pytest.raises(InputError, match=r"uses .* of 4 experts"):
        moe.check(checkpoint)
