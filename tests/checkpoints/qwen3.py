"""Qwen3: queries and keys are normed, heads are wider than the hidden size divided by their number."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Qwen3"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def make(folder: Path) -> None:
    from transformers import Qwen3Config

    ids = parts.byte_level(
        folder, special=SPECIAL, eos=SPECIAL[2], template=parts.CHATML, cut=parts.ONE_BY_ONE, nfc=True
    )
    config = Qwen3Config(
        vocab_size=1152, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=128, max_position_embeddings=512, use_sliding_window=False,
        rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, attention_bias=False,
        tie_word_embeddings=True, bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[2]],
    )  # fmt: skip
    parts.write(folder, config)
