"""SmolLM2: a Llama with numbers cut into digits and GPT-2's pattern, tied embedding."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "SmolLM2"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make(folder: Path) -> None:
    from transformers import LlamaConfig

    ids = parts.byte_level(folder, special=SPECIAL, bos=SPECIAL[1], eos=SPECIAL[2], template=parts.CHATML, digits=True)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=512, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, tie_word_embeddings=True,
        bos_token_id=ids[SPECIAL[1]], eos_token_id=ids[SPECIAL[2]],
    )  # fmt: skip
    parts.write(folder, config)
