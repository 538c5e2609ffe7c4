"""A plan's types in ai-edge-quantizer's words, and which of its matrices may be smoothed."""

from __future__ import annotations

import re
from types import SimpleNamespace

from edge.export.artifact import Planned, Quantization
from edge.export.formats import tflite

LAYER = "model.layers.0"
PLANNED = Planned(
    Quantization("mixed-4.90", 4, 4.9),
    {
        "model.embed_tokens.weight": "4/32",
        f"{LAYER}.self_attn.q_proj.weight": "8",
        f"{LAYER}.mlp.up_proj.weight": "4/64",
        f"{LAYER}.mlp.down_proj.weight": "32",
    },
)


def granularity(operation: str) -> str:
    """What the last rule that matches says."""
    [*_, last] = [r for r in tflite._recipe(tflite.plan_of(PLANNED)) if re.match(r["regex"], operation)]
    return str(last["op_config"].get("weight_tensor_config", {}).get("granularity"))


def test_every_type_has_a_rule():
    assert granularity(f"{LAYER}.self_attn.q_proj") == "CHANNELWISE"
    assert granularity(f"{LAYER}.mlp.up_proj") == "BLOCKWISE_64"
    assert granularity(f"{LAYER}.mlp.down_proj") == "None"
    assert granularity("decode/logits") == granularity("model.embed_tokens") == "BLOCKWISE_32"


def test_blocks_are_not_smoothed():
    may = tflite._may_be_smoothed(PLANNED, SimpleNamespace(model_type="llama", config={}, tensors={}))
    assert [may(f"{LAYER}.{name}.weight") for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")] == [
        True, False, True,
    ]  # fmt: skip
