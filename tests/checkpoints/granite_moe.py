"""Granite-MoE: experts stacked in one tensor, embedding, residual, attention and logits scaled."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Granite-MoE"
FAMILY = "moe"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path) -> None:
    from transformers import GraniteMoeConfig

    ids = parts.byte_level(folder, special=SPECIAL, eos=SPECIAL[2], template=parts.CHATML, cut=parts.ONE_BY_ONE)
    config = GraniteMoeConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=False,
        num_local_experts=4, num_experts_per_tok=2,
        embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.0625, logits_scaling=2.0,
        bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[2]], pad_token_id=ids[SPECIAL[0]],
    )  # fmt: skip
    parts.write(folder, config)
