"""The source itself, run by `transformers` in float32: what every export is compared with."""

from __future__ import annotations

import logging
import os
from typing import Any

from edge.errors import require
from edge.export import preflight
from edge.export.checkpoint import Checkpoint


def load_model(checkpoint: Checkpoint) -> Any:
    """The source model on the CPU, as its family loads it."""
    from edge.export import families

    return families.of(checkpoint.config, checkpoint.name).load_reference(checkpoint)


def causal_lm(checkpoint: Checkpoint) -> Any:
    """A text model from its own files only; no code of the checkpoint is run.

    One that does not fit in memory is read layer by layer, each time it is called.
    """
    transformers = library()
    import torch

    if not preflight.holds_source(checkpoint):
        from edge.export import attention, streamed

        return streamed.causal_lm(checkpoint, attention.text_config(checkpoint))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def image_text_model(checkpoint: Checkpoint) -> Any:
    """A model that takes pictures and text, from its own files only; no code of the checkpoint is run."""
    transformers = library()
    import torch

    model = transformers.AutoModelForImageTextToText.from_pretrained(
        checkpoint.folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        attn_implementation="eager",
    )
    return model.eval()


def load_processor(checkpoint: Checkpoint) -> Any:
    """The source's processor of pictures and text, as `transformers` runs it with Pillow."""
    if "video_token_id" in checkpoint.config:
        from edge.export.vision.processor import still_pictures

        return still_pictures(checkpoint, library())
    return library().AutoProcessor.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False, backend="pil"
    )


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The source's tokenizer as `transformers` loads it, with its chat template."""
    return library().AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)


def library() -> Any:
    """The library, silent: what it and its optional parts have to say while loading is not for our users."""
    require("transformers", extra="export", purpose="running the source model")
    require("torch", extra="export", purpose="running the source model")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
