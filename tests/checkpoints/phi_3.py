"""Phi-3 mini: queries, keys and values in one matrix, gate and up in another, a sliding window, SentencePiece."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Phi-3"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>")


def make(folder: Path) -> None:
    from transformers import Phi3Config

    ids = parts.sentencepiece(
        folder, special=SPECIAL, bos="<s>", eos="<|endoftext|>", template=TEMPLATE, kind="LlamaTokenizer"
    )
    config = Phi3Config(
        vocab_size=1088, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, original_max_position_embeddings=512, sliding_window=128,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=False,
        bos_token_id=ids["<s>"], eos_token_id=ids["<|endoftext|>"], pad_token_id=ids["<|endoftext|>"],
    )  # fmt: skip
    parts.write(folder, config)
