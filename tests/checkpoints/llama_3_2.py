"""Llama 3.2: rotary frequencies scaled as "llama3", tied embedding, words that are tokens are never cut."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Llama 3.2"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def make(folder: Path) -> None:
    from transformers import LlamaConfig

    ids = parts.byte_level(
        folder, special=SPECIAL, bos=SPECIAL[0], eos=SPECIAL[4], template=TEMPLATE, cut=parts.BY_THREES, first=True,
        whole_words=True,
    )  # fmt: skip
    scaling = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 128}
    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=512, rope_parameters=scaling,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=ids[SPECIAL[0]], eos_token_id=ids[SPECIAL[4]],
    )  # fmt: skip
    parts.write(folder, config)
