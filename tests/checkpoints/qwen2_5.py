"""Qwen2.5: biases on queries, keys and values; a vocabulary padded beyond the tokenizer's; digit by digit."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Qwen2.5"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path) -> None:
    from transformers import Qwen2Config

    ids = parts.byte_level(
        folder, special=SPECIAL, eos=SPECIAL[2], template=parts.CHATML, cut=parts.ONE_BY_ONE, nfc=True
    )
    config = Qwen2Config(
        vocab_size=1152, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, use_sliding_window=False, sliding_window=48,
        max_window_layers=3, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True, bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[2]],
    )  # fmt: skip
    parts.write(folder, config)
