"""What kinds of models there are: one file for each family, which lists the model types it knows.

A family says how its source is run, and what is particular about it:

- `MODEL_TYPES`: the values of `model_type` in config.json that belong to it; a new one is one word there.
- `label(checkpoint)`: what the manifest calls it (llm, slm, moe, vlm, lam).
- `load_reference(checkpoint)`: the source model in float32, as `transformers` runs it.
- `facts(checkpoint)`: what `edge inspect` adds for this family.
- `check(checkpoint)`, if it has one: raises `InputError` for a checkpoint that is not whole; only headers are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from edge.errors import UsageError
from edge.find import load, names

_FAMILIES = "edge.export.families"


def of(config: Mapping[str, Any], where: str) -> ModuleType:
    """The family of a checkpoint with this config.json; `where` names the checkpoint in the error.

    Raises `UsageError` for a model type that no family knows.
    """
    model_type = config.get("model_type")
    known: list[str] = []
    for name in names(_FAMILIES):
        family = load(_FAMILIES, name)
        if model_type in family.MODEL_TYPES:
            return family
        known += family.MODEL_TYPES
    raise UsageError(
        f"{where} is of the model type {model_type!r}, which this edge does not export",
        hint=f"it exports: {', '.join(sorted(known))}",
    )
