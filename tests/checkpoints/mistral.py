"""Mistral 7B v0.1: a sliding window in every layer, grouped queries, an untied head, SentencePiece."""

from __future__ import annotations

from pathlib import Path

from tests import checkpoint_parts as parts

NAME = "Mistral"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% elif message.role == 'assistant' %} {{ message.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def make(folder: Path) -> None:
    from transformers import MistralConfig

    ids = parts.sentencepiece(folder, special=(), bos="<s>", eos="</s>", template=TEMPLATE, kind="LlamaTokenizer")
    config = MistralConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=512, sliding_window=128, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, tie_word_embeddings=False,
        bos_token_id=ids["<s>"], eos_token_id=ids["</s>"],
    )  # fmt: skip
    parts.write(folder, config)
