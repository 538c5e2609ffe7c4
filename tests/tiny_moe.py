"""Tiny random mixtures of experts of every known layout, with experts that differ: for tests of all formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edge.export.checkpoint import Checkpoint, TensorInfo

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


def headers(model_type: str, n_experts: int = 4, **changed: Any) -> Checkpoint:
    """A checkpoint without weights: a configuration and the tensors that belong to it."""
    config = {"model_type": model_type, **SIZES, **changed}
    config["num_local_experts" if model_type in ("mixtral", "granitemoe") else "num_experts"] = n_experts
    hidden, inner = SIZES["hidden_size"], SIZES["intermediate_size"]
    from edge.export import experts

    tensors = {}
    bare = Checkpoint(Path("nowhere"), "tiny", "moe", config, {}, {})
    for layer in experts.layers(bare):
        shapes = {layer.router: (n_experts, hidden)}
        if layer.stacked:
            shapes |= {layer.stacked[0]: (n_experts, 2 * inner, hidden), layer.stacked[1]: (n_experts, hidden, inner)}
        for gate, up, down in layer.experts:
            shapes |= {gate: (inner, hidden), up: (inner, hidden), down: (hidden, inner)}
        tensors |= {name: TensorInfo(name, "F32", shape, "model.safetensors") for name, shape in shapes.items()}
    return Checkpoint(Path("nowhere"), "tiny", "moe", config, tensors, {})


def write(
    folder: Path, model_type: str, tokenizer_folder: Path, *, n_experts: int = 4, seed: int = 0, **changed: Any
) -> Path:
    """A random checkpoint in `folder`, with a real tokenizer; embedding rows follow its vocabulary.

    Weights are larger than at initialization, so that logits are far apart and experts matter.
    """
    import torch
    import transformers

    sizes = {**SIZES, "vocab_size": 49152, **changed}
    sizes["num_local_experts" if model_type in ("mixtral", "granitemoe") else "num_experts"] = n_experts
    if model_type in ("mixtral", "qwen3_moe"):
        sizes["sliding_window"] = None
    if model_type in ("olmoe", "granitemoe"):
        sizes.pop("head_dim")
    if model_type == "olmoe":  # as all of them are: as many heads for keys as for queries
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    if model_type == "qwen3_moe":
        sizes["norm_topk_prob"] = True
    if model_type == "granitemoe":
        sizes |= {
            "attention_multiplier": 0.25,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            "embedding_multiplier": 3.0,
        }
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.copy_(1 + 0.1 * torch.randn_like(value))
            elif "embed" in name or "lm_head" in name:
                value.normal_(0, 0.5)
            else:
                value.normal_(0, 1.5 / value.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer_folder / name, folder / name)
    written = json.loads((folder / "config.json").read_text())
    written["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(written, indent=1))
    return folder
