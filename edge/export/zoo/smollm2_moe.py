"""SmolLM2 with four experts in each layer, two for each token, in Mixtral's layout.

An expert is the MLP of `smollm2` plus what was learned for it (`adapters/smollm2-moe`, float16, made by
`edge/export/training/smollm2_moe.py`). Everything else are the weights of `smollm2`. Both are put together
in the cache, in float32, and the result is checked by its hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge.export.checkpoint import Checkpoint
from edge.export.experts import NAMINGS
from edge.export.zoo import smollm2
from edge.export.zoo._assemble import assembled, merged, side_files
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

NAME = "smollm2-moe"
USED = 2
_NAMING = NAMINGS["mixtral"]
_PARTS = (("gate", _NAMING.gate), ("up", _NAMING.up), ("down", _NAMING.down))


def open_zoo(*, progress: Progress) -> Checkpoint:
    """The assembled checkpoint. Raises `InputError` when it is not the one that was scored."""
    progress.start(f"assembling {NAME}")
    return assembled(NAME, smollm2.open_zoo(progress=progress), tensors, files, code=__name__)


def tensors(base: Checkpoint, learned: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The base's weights, its MLPs replaced by routers and experts.

    `learned` has `gate_a` and its like `(layers, experts, rank, inputs)`, `gate_b` and its like
    `(layers, experts, outputs, rank)`, and `router` `(layers, experts, hidden)`.
    """
    import numpy as np

    for name in base.tensors:
        if ".mlp." not in name:
            yield name, base.read(name)
    for i, routers in enumerate(learned["router"]):
        yield f"model.layers.{i}.{_NAMING.router}", routers.astype(np.float32)
        for part, matrix in _PARTS:
            weight = base.read(f"model.layers.{i}.mlp.{part}_proj.weight")
            for e, (down, up) in enumerate(zip(learned[f"{part}_a"][i], learned[f"{part}_b"][i], strict=True)):
                yield f"model.layers.{i}.{_NAMING.expert.format(e=e)}{matrix}", merged(weight, down, up)


def files(base: Checkpoint) -> dict[str, str]:
    """Tokenizer and template of the base; a configuration in Mixtral's words."""
    config: dict[str, Any] = {k: v for k, v in base.config.items() if k not in ("attention_bias", "mlp_bias")}
    config |= {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": USED,
        "sliding_window": None,
        "router_aux_loss_coef": 0.02,
        "output_router_logits": False,
    }
    return side_files(base) | {"config.json": json.dumps(config, indent=2) + "\n"}
