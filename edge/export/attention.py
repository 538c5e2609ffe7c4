"""What a checkpoint's attention looks like, as `transformers` understands its configuration: windows and rotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.errors import UsageError
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np


def windows(checkpoint: Checkpoint) -> list[int | None]:
    """How many of the last positions each layer sees, its own included; `None` for one that sees everything."""
    config = text_config(checkpoint)
    size = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [size if kind == "sliding_attention" else None for kind in kinds]


def rotary_tables(checkpoint: Checkpoint, n_positions: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cosines and sines by which each layer turns queries and keys, float32 `(n_positions, rotated / 2)`.

    From the model's own code, so that every way of scaling frequencies is what the source does.
    Layers of one kind share their arrays. Empty for a model without rotary embedding.
    """
    import inspect

    import torch

    from edge.export import reference

    config = text_config(checkpoint)
    with torch.device("meta"):
        model = reference.library().AutoModelForCausalLM.from_config(config)
    found = next((type(m) for m in model.modules() if type(m).__name__.endswith("RotaryEmbedding")), None)
    if found is None:
        return []
    rotary = found(config)
    by_kind = "layer_type" in inspect.signature(found.forward).parameters
    kinds = (getattr(config, "layer_types", None) if by_kind else None) or [""] * config.num_hidden_layers
    made: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for kind in dict.fromkeys(kinds):
        arguments = {"layer_type": kind} if by_kind else {}
        with torch.inference_mode():
            turned = rotary(torch.zeros(1), torch.arange(n_positions)[None], **arguments)
        cos, sin = (t[0, :, : t.shape[-1] // 2].float().numpy() for t in turned)
        made[kind] = cos, sin
    return [made[kind] for kind in kinds]


def check_frequencies(checkpoint: Checkpoint, context_length: int) -> None:
    """Raise `UsageError` where the source itself would turn by other frequencies in the middle of a text.

    "longrope" has one list of factors up to the length that the model was first trained with and
    another beyond it; a file holds one of them.
    """
    config = checkpoint.text_config
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None
    first = scaling.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    if kind == "longrope" and isinstance(first, int) and context_length > first:
        raise UsageError(
            f"a context of {context_length} tokens was asked for; {checkpoint.name} changes its rotary frequencies "
            f"after {first} tokens (longrope), and a file holds one set of them",
            hint=f"ask for a shorter one: --context {first}",
        )


def text_config(checkpoint: Checkpoint) -> Any:
    """The decoder's configuration with all defaults filled in; no code of the checkpoint is run."""
    from edge.export import reference

    transformers = reference.library()
    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    return config.get_text_config()
