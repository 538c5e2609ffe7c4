"""Tiny random checkpoints of models that see: real layouts, real processors, no trained weights.

    llava(folder)                  SigLIP tower, all patches, the last layer
    llava(folder, tower="clip")    CLIP tower, its class token left out, the last layer but one

Random weights show whether a conversion is faithful; whether a model is any good they cannot show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.tiny_bundle import tiny_tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}{{ IMAGE }}{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN = 64
N_CONTEXT = 512


def llava(folder: Path, *, tower: str = "siglip", seed: int = 0) -> Path:
    """36 px pictures for SigLIP (9 tokens of 12 px patches), 32 px for CLIP (16 tokens of 8 px patches)."""
    import transformers as t

    tokenizer = _tokenizer(["<image>"])
    if tower == "siglip":
        vision: Any = t.SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=36,
            patch_size=12,
        )
        vision.vision_use_head = False
        images: Any = t.SiglipImageProcessorPil(size={"height": 36, "width": 36})
        layer, strategy, extra = -1, "full", 0
    else:
        vision = t.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
        images = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        layer, strategy, extra = -2, "default", 1
    config = t.LlavaConfig(
        vision_config=vision,
        text_config=_llama(len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    processor = t.LlavaProcessor(
        images,
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        chat_template=TEMPLATE.replace("{{ IMAGE }}", "<image>\n"),
        num_additional_image_tokens=extra,
    )
    return _save(folder, t.LlavaForConditionalGeneration, config, processor, tokenizer, seed)


def _llama(vocab_size: int) -> Any:
    import transformers as t

    return t.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=N_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def _tokenizer(extra: Sequence[str], *, n_words: int = 0) -> Any:
    """The tiny bundle's tokenizer with more control tokens."""
    import transformers as t
    from tokenizers import Tokenizer

    made = t.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny_tokenizer()), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_tokens([t.AddedToken(token, special=True, normalized=False) for token in extra], special_tokens=True)
    return made


def _save(folder: Path, kind: Callable[..., Any], config: Any, processor: Any, tokenizer: Any, seed: int) -> Path:
    import torch

    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Random weights as they come give nearly the same logits everywhere; these tell tokens apart.
            # No two tensors are alike, so that none can stand in for another.
            if value.ndim == 1:
                value.normal_(0.0 if name.endswith("bias") else 1.0, 0.05)
            elif "embed_tokens" not in name and "vision" not in name:
                value.normal_(0, 1.2 / value.shape[-1] ** 0.5)
            elif "embed_tokens" in name:
                value.normal_(0, 0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>")}))
    return folder
