"""Adapters: nothing at first, what was learned in the merged weight, and out of the way while they rest."""

from __future__ import annotations

import numpy as np
import pytest

from edge.export.training import lora
from edge.export.zoo._assemble import merged

pytestmark = pytest.mark.runtime


def layer(torch):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj = torch.nn.Linear(6, 4, bias=False)

        def forward(self, x):
            return self.up_proj(x)

    torch.manual_seed(0)
    return Layer()


def test_a_new_adapter_changes_nothing_and_a_trained_one_is_what_is_merged():
    import torch

    model, x = layer(torch), torch.randn(2, 3, 6)
    weight, before = model.up_proj.weight.detach().clone(), model(x)
    trained = lora.attach(model, ["up_proj"], rank=2, seed=1)
    assert set(trained) == {"up_proj.lora_A", "up_proj.lora_B"}
    assert torch.equal(model(x), before)
    with torch.no_grad():
        trained["up_proj.lora_B"].normal_()
    kept = {name: tensor.float().numpy() for name, tensor in lora.learned(trained).items()}
    whole = merged(weight.numpy(), kept["up_proj.lora_A"], kept["up_proj.lora_B"])
    np.testing.assert_allclose(model(x).detach().numpy(), x.numpy() @ whole.T, atol=5e-3)


def test_while_adapters_rest_the_model_is_what_it_was():
    import torch

    model, x = layer(torch), torch.randn(2, 3, 6)
    before = model(x)
    trained = lora.attach(model, ["up_proj"], rank=2, seed=1)
    with torch.no_grad():
        trained["up_proj.lora_B"].normal_()
    with lora.resting():
        assert torch.equal(model(x), before)
    assert not torch.allclose(model(x), before)


def test_a_higher_rank_begins_where_a_lower_one_ended():
    import torch

    x = torch.randn(2, 3, 6)
    small = layer(torch)
    trained = lora.attach(small, ["up_proj"], rank=2, seed=1)
    with torch.no_grad():
        trained["up_proj.lora_B"].normal_()
    large = layer(torch)
    more = lora.attach(large, ["up_proj"], rank=5, seed=2)
    lora.resume(more, {name: tensor.float() for name, tensor in lora.learned(trained).items()})
    torch.testing.assert_close(large(x), small(x), atol=5e-3, rtol=0)
    assert more["up_proj.lora_A"].shape == (5, 6)
    assert more["up_proj.lora_A"][2:].abs().min() > 0
