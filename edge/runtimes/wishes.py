"""How a model wishes its answers to be drawn, and what is done when it says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.runtimes.session import Sampling

_DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "repeat_penalty": 1.1}
# Our name -> the name in generation_config.json
NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}


def with_given(given: Mapping[str, Any], wished: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Sampling`: what was asked for, over what the model wishes, over our defaults.

    Greedy means the model's own first choice: no penalty then, unless one was asked for.
    """
    if given.get("temperature") == 0:
        return {"temperature": 0.0, **given}
    return {**_DEFAULTS, **wished, **given}


def read(folder: Path) -> dict[str, Any]:
    """What generation_config.json says of sampling, as far as it makes sense."""
    from edge.runtimes.tokenizer import read_config

    config = read_config(folder / "generation_config.json")
    found: dict[str, Any] = {}
    for ours, theirs in NAMES.items():
        value = config.get(theirs)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        one: dict[str, Any] = {ours: int(value) if ours == "top_k" else float(value)}
        try:
            Sampling(**one)
        except EdgeError:
            continue
        found.update(one)
    return found
