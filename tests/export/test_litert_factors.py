"""Numbers that are multiplied into matrices, known and unknown."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.litert_factors import candidates, factor, is_multiple

GRANITE = {"residual_multiplier": 0.22, "logits_scaling": 8.0, "attention_multiplier": 0.0625, "hidden_size": 64}


@pytest.mark.parametrize(
    ("name", "config", "wanted"),
    [
        ("model.layers.0.self_attn.o_proj.weight", GRANITE, (0.22,)),
        ("lm_head.weight", GRANITE, (0.125,)),
        ("model.layers.3.self_attn.q_proj.weight", GRANITE, (0.0625,)),
        ("model.layers.3.self_attn.q_proj.weight", {"hidden_size": 64, "num_attention_heads": 4}, (0.25,)),
        ("model.layers.3.self_attn.v_proj.weight", GRANITE, ()),
        ("model.layers.0.self_attn.o_proj.weight", {"hidden_size": 64}, ()),
    ],
)
def test_only_what_the_configuration_says_is_looked_for(name, config, wanted):
    assert candidates(name, config) == wanted


@pytest.mark.parametrize("by", [1.0, 0.22])
def test_the_number_is_found_in_exact_and_in_rounded_values(by):
    name, matrix = "model.layers.0.self_attn.o_proj.weight", np.random.default_rng(0).normal(size=(8, 16))
    matrix = matrix.astype(np.float32)
    exact = matrix * np.float32(by)
    step = np.abs(exact).max() / 7
    rounded = np.round(exact / step) * step
    assert factor(exact, matrix, name, GRANITE) == by
    assert factor(rounded, matrix, name, GRANITE) == by
    assert is_multiple(exact, matrix, by)
    assert not is_multiple(rounded, matrix, by)
    changed = exact.copy()
    changed[3, 3] *= 1.001
    assert not is_multiple(changed, matrix, by)
