"""A complete bundle for the echo runtime: real tokenizer, real chat template, no weights.

It answers with what it was told, so a test knows every answer before it asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.bundle import Bundle

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# How the echo bundle cuts pictures: two rows of features for each, of the upper and the lower half.
IMAGE = {
    "kind": "whole", "token": "<image>", "token_id": 275, "placeholder": "<image>", "n_tokens": 2,
    "before": "", "after": "", "resample": 0, "scale": None, "mean": None, "std": None, "pad": None, "crop": None,
    "resize": {"height": 4, "width": 4}, "height": 4, "width": 4,
}  # fmt: skip
STOP = SPECIAL.index("<|im_end|>")
# Roles are one token each, so that all turns open with headers of three tokens.
WORDS = ("user", "assistant", "system")


def tiny_tokenizer(more: Sequence[str] = ()) -> str:
    """A tokenizer.json: byte-level BPE with all 256 bytes, one token per role, ChatML's control tokens and `more`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    merges = []
    for word in WORDS:
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault(word[: end + 1], len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*SPECIAL, *more)])
    return str(tokenizer.to_str())


def tiny_bundle(
    folder: Path,
    *,
    context_length: int = 1024,
    proven: bool = True,
    template: str | None = TEMPLATE,
    generation_config: dict[str, Any] | None = None,
    name: str = "tiny",
    image: Mapping[str, Any] | None = None,
    pooling: str | None = None,
) -> Bundle:
    """Write the bundle into `folder` (made if need be) and return its manifest; with `image`, it sees.

    With `pooling` ("mean", "cls", "last") it gives vectors too: the ids of tokens, in eight bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer([image["token"]] if image else [])
    (folder / "model.bin").write_bytes(b"echo")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "echo"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if generation_config is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation_config))

    from edge.runtimes.chat_template import ChatTemplate

    loaded = ChatTemplate.load(folder)
    bundle = Bundle(
        name=name,
        family="slm",
        format="echo",
        quantization="none",
        model_file="model.bin",
        context_length=context_length,
        vocab_size=len(json.loads(tokenizer)["model"]["vocab"]) + (1 if image else 0),
        stop_ids=(STOP,),
        source={"name": name},
        files=bundles.list_files(folder),
        proven=proven,
        template_sha256=loaded.sha256 if loaded else None,
        parts={"vision": "model.bin"} if image else {},
        image=image or {},
        plan={"pooling": pooling} if pooling else {},
    )
    bundles.write(bundle, folder)
    return bundle
