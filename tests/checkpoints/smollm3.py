"""SmolLM3: every fourth layer has no rotary embedding."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "SmolLM3"
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path) -> None:
    from transformers import SmolLM3Config

    ids = parts.byte_level(
        folder, special=SPECIAL, bos=SPECIAL[0], eos=SPECIAL[3], template=parts.CHATML, cut=parts.BY_THREES,
        whole_words=True,
    )  # fmt: skip
    config = SmolLM3Config(
        vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0],
        use_sliding_window=False, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 5e6},
        tie_word_embeddings=True, bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[3]],
        pad_token_id=ids[SPECIAL[1]],
    )  # fmt: skip
    parts.write(folder, config)
