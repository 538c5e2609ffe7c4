"""Gemma 3 (text): five of six layers see a window, each kind has its own rotary base, the embedding is scaled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import checkpoint_parts as parts

NAME = "Gemma 3"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else message.role }}\n{{ message.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SPECIAL = ("<mask>", "<start_of_turn>", "<end_of_turn>")


def make(folder: Path) -> None:
    from transformers import Gemma3TextConfig

    ids = parts.sentencepiece(
        folder, special=SPECIAL, bos="<bos>", eos="<end_of_turn>", template=TEMPLATE, kind="GemmaTokenizer",
        prefix=False, pad_first=True,
    )  # fmt: skip
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = Gemma3TextConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=512, sliding_window=48, layer_types=kinds,
        query_pre_attn_scalar=64, rms_norm_eps=1e-6, hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        },
        bos_token_id=ids["<bos>"], eos_token_id=ids["<end_of_turn>"], pad_token_id=ids["<pad>"],
    )  # fmt: skip

    def adjust(model: Any) -> None:
        # The embedding is multiplied by 16 on its way in: as large as the head needs it, nothing else would count.
        model.model.embed_tokens.weight.mul_(0.16)
        model.model.norm.weight.add_(5.0)

    parts.write(folder, config, adjust=adjust)
