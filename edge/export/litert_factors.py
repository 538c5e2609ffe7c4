"""Numbers that litert-torch's compiler multiplies into matrices: a matrix times a number is one matrix.

Granite scales what each layer adds and its logits; where queries are not turned, the scale of attention comes
straight behind their matrix (every fourth layer of SmolLM3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_TOLERANCE = 1e-6  # relative: whether the compiler multiplied or divided


def candidates(name: str, config: Mapping[str, Any]) -> tuple[float, ...]:
    """What the matrix `name` may have been multiplied by, by this config.json; nothing for most.

    >>> candidates("model.layers.0.self_attn.o_proj.weight", {"residual_multiplier": 0.5})
    (0.5,)
    """
    found: float | None = None
    if name.endswith("q_proj.weight"):
        heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
        width = config.get("head_dim") or (hidden // heads if heads and hidden else None)
        found = config.get("attention_multiplier") or (width**-0.5 if width else None)
    elif name.endswith(("o_proj.weight", "down_proj.weight")):
        found = config.get("residual_multiplier")
    elif name.endswith(("lm_head.weight", "embed_tokens.weight")) and config.get("logits_scaling"):
        found = 1 / config["logits_scaling"]
    return (float(found),) if found and found != 1 else ()


def factor(stored: np.ndarray, wanted: np.ndarray, name: str, config: Mapping[str, Any]) -> float:
    """Which of them `stored` was multiplied by, rounded to few bits or not; 1 if none."""
    import numpy as np

    among = candidates(name, config)
    if not among or stored.shape != wanted.shape:
        return 1.0
    ratio = float(np.vdot(stored, wanted)) / (float(np.vdot(wanted, wanted)) or 1.0)
    return min((1.0, *among), key=lambda number: abs(number - ratio))


def is_multiple(stored: np.ndarray, wanted: np.ndarray, by: float) -> bool:
    """Whether every value of `stored` is the one of `wanted` times `by`."""
    import numpy as np

    return bool(np.allclose(stored, wanted * np.float32(by), rtol=_TOLERANCE, atol=0))
