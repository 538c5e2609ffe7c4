"""Models that see: a vision encoder and a projector before a decoder of text."""

from __future__ import annotations

from typing import Any

from edge.export import reference
from edge.export.checkpoint import Checkpoint
from edge.export.vision import split as parts

MODEL_TYPES = ("llava", "idefics3", "smolvlm", "gemma3", "qwen2_5_vl")


def label(checkpoint: Checkpoint) -> str:
    return "vlm"


def load_reference(checkpoint: Checkpoint) -> Any:
    return reference.image_text_model(checkpoint)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    text, vision = parts.n_parameters(checkpoint)
    return {
        "text_parameters": text,
        "vision_parameters": vision,
        "text_model_type": checkpoint.text_config.get("model_type"),
    }


def split(checkpoint: Checkpoint) -> parts.Split:
    """Its text part as a checkpoint of its own, and the names of its vision tensors."""
    return parts.split(checkpoint)
