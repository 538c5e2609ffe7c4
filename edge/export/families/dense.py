"""Dense decoders: every weight takes part in every token."""

from __future__ import annotations

from typing import Any

from edge.export import reference
from edge.export.checkpoint import Checkpoint
from edge.export.families import lam

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "granite")
_SMALL_MODEL_PARAMETERS = 1_500_000_000


def label(checkpoint: Checkpoint) -> str:
    if lam.acts(checkpoint):
        return lam.label(checkpoint)
    return "slm" if checkpoint.n_parameters < _SMALL_MODEL_PARAMETERS else "llm"


def load_reference(checkpoint: Checkpoint) -> Any:
    return reference.causal_lm(checkpoint)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"active_parameters": checkpoint.n_parameters}
