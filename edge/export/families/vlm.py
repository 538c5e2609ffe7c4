"""Models that see: a vision encoder and a projector before a decoder of text."""

from __future__ import annotations

from typing import Any

from edge.export import reference
from edge.export.checkpoint import Checkpoint

MODEL_TYPES = ("llava",)


def label(checkpoint: Checkpoint) -> str:
    return "vlm"


def load_reference(checkpoint: Checkpoint) -> Any:
    return reference.image_text_model(checkpoint)


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"text_model_type": checkpoint.text_config.get("model_type")}
