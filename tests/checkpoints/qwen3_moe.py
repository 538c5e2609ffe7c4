"""Qwen3-MoE: queries and keys are normed, the chosen experts' weights sum to one."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Qwen3-MoE"
FAMILY = "moe"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path) -> None:
    from transformers import Qwen3MoeConfig

    ids = parts.byte_level(folder, special=SPECIAL, eos=SPECIAL[2], template=parts.CHATML, cut=parts.ONE_BY_ONE)
    config = Qwen3MoeConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=False,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=128,
        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
        bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[2]], pad_token_id=ids[SPECIAL[0]],
    )  # fmt: skip
    parts.write(folder, config)
