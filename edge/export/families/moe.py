"""Mixtures of experts: a router in each layer chooses the few that compute a token."""

from __future__ import annotations

from typing import Any

from edge.export import experts, reference
from edge.export.checkpoint import Checkpoint

MODEL_TYPES = ("mixtral", "qwen3_moe", "olmoe", "granitemoe")


def label(checkpoint: Checkpoint) -> str:
    return "moe"


def check(checkpoint: Checkpoint) -> None:
    """Raise `InputError` when a router or an expert is missing."""
    experts.check(checkpoint)


def load_reference(checkpoint: Checkpoint) -> Any:
    return reference.causal_lm(checkpoint)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    total, active = experts.n_parameters(checkpoint)
    return {
        "experts": experts.count(checkpoint.config),
        "experts_per_token": experts.used(checkpoint.config),
        "layers_with_experts": len(experts.layers(checkpoint)),
        "active_parameters": checkpoint.n_parameters - total + active,
    }
