"""Tiny random checkpoints of models that see: real layouts, real processors, no trained weights.

    llava(folder)                  SigLIP tower, all patches, the last layer
    llava(folder, tower="clip")    CLIP tower, its class token left out, the last layer but one
    smolvlm(folder)                Idefics3: pictures in tiles
    gemma3(folder)                 SigLIP tower averaged over squares; a picture's rows see each other
    qwen2_5_vl(folder)             pictures of any size, rows placed in three dimensions

Random weights show whether a conversion is faithful; whether a model is any good they cannot show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests import checkpoint_parts as parts

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}IMAGE{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
N_CONTEXT = 1024


def llava(folder: Path, *, tower: str = "siglip", seed: int = 0) -> Path:
    """36 px pictures for SigLIP (9 tokens of 12 px patches), 32 px for CLIP (16 tokens of 8 px patches)."""
    import transformers as t

    tokenizer, ids = _tokenizer(folder, ["<image>"], TEMPLATE.replace("IMAGE", "<image>\n"))
    if tower == "siglip":
        vision = _siglip(image_size=36, patch_size=12)
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
        text_config=_llama(ids),
        image_token_index=ids["<image>"],
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
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=extra,
    )
    return _save(folder, t.LlavaForConditionalGeneration, config, processor, seed)


def smolvlm(folder: Path, *, seed: int = 0) -> Path:
    """Tiles of 32 px, 16 patches of which become 4 tokens; a picture's long side becomes 64 px: up to 4 tiles."""
    import transformers as t

    places = [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]
    special = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *places]
    tokenizer, ids = _tokenizer(folder, special, TEMPLATE.replace("IMAGE", "<image>"))
    text = _llama(ids)
    config = t.Idefics3Config(
        vision_config={**_siglip(image_size=32, patch_size=8).to_dict(), "model_type": "idefics3_vision"},
        text_config=text,
        image_token_id=ids["<image>"],
        scale_factor=2,
        tie_word_embeddings=True,
        pad_token_id=ids[CONTROLS[0]],
    )
    images = t.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = t.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template)
    return _save(folder, t.Idefics3ForConditionalGeneration, config, processor, seed)


def gemma3(folder: Path, *, seed: int = 0) -> Path:
    """32 px pictures, 16 patches averaged to 4 tokens."""
    import transformers as t

    template = (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for p in m.content %}"
        "{% if p.type == 'image' %}<start_of_image>{% else %}{{ p.text | trim }}{% endif %}{% endfor %}{% endif %}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    special = ("<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
    ids = parts.sentencepiece(
        folder, special=special, bos="<bos>", eos="<end_of_turn>", template=template, kind="GemmaTokenizer",
        prefix=False, pad_first=True,
    )  # fmt: skip
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = t.AutoTokenizer.from_pretrained(folder, extra_special_tokens=named)
    kinds = ["sliding_attention"] * 5 + ["full_attention"]  # llama.cpp knows no other order
    text = t.Gemma3TextConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=N_CONTEXT, sliding_window=512, layer_types=kinds,
        query_pre_attn_scalar=32, tie_word_embeddings=True,
        bos_token_id=ids["<bos>"], eos_token_id=ids["<end_of_turn>"], pad_token_id=ids["<pad>"],
    )  # fmt: skip
    config = t.Gemma3Config(
        text_config=text,
        vision_config=_siglip(image_size=32, patch_size=8),
        mm_tokens_per_image=4,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    images = t.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = t.Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    return _save(folder, t.Gemma3ForConditionalGeneration, config, processor, seed)


def qwen2_5_vl(folder: Path, *, seed: int = 0) -> Path:
    """Patches of 14 px, four of which become one token; every other layer sees windows, the others everything."""
    import transformers as t

    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    written = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    _, ids = _tokenizer(folder, special, written)
    text = t.Qwen2_5_VLTextConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=N_CONTEXT, tie_word_embeddings=True, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        bos_token_id=None, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
    )  # fmt: skip
    vision = t.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig(
        depth=4, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64, window_size=112,
        fullatt_block_indexes=[1, 3],
    )  # fmt: skip
    config = t.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=True,
        **{f"{k}_token_id": ids[f"<|{k}_pad|>"] for k in ("image", "video")},
        **{f"vision_{k}_token_id": ids[f"<|vision_{k}|>"] for k in ("start", "end")},
    )
    images = t.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
        min_pixels=28 * 28 * 30, max_pixels=28 * 28 * 64
    )
    return _save(folder, t.Qwen2_5_VLForConditionalGeneration, config, images, seed)


def _siglip(*, image_size: int, patch_size: int) -> Any:
    import transformers as t

    vision = t.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        image_size=image_size, patch_size=patch_size,
    )  # fmt: skip
    vision.vision_use_head = False
    return vision


def _llama(ids: dict[str, int]) -> Any:
    import transformers as t

    return t.LlamaConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=N_CONTEXT, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
    )  # fmt: skip


def _tokenizer(folder: Path, more: Sequence[str], template: str) -> tuple[Any, dict[str, int]]:
    import transformers as t

    ids = parts.byte_level(folder, special=(*CONTROLS, *more), eos="<|im_end|>", template=template)
    return t.AutoTokenizer.from_pretrained(folder), ids


def _save(folder: Path, kind: Callable[..., Any], config: Any, processor: Any, seed: int) -> Path:
    import torch

    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Random weights as they come give nearly the same logits everywhere; these tell tokens apart.
            # No two tensors are alike, so that none can stand in for another.
            if value.ndim == 1:
                one = not name.endswith("bias") and config.model_type != "gemma3"
                value.normal_(1.0 if one or ("vision" in name and not name.endswith("bias")) else 0.0, 0.05)
            elif "embed_tokens" in name:
                value.normal_(0, 0.04 if config.model_type == "gemma3" else 0.3)  # Gemma multiplies it by 8
            elif "vision" not in name:
                value.normal_(0, 1.2 / value.shape[-1] ** 0.5)
    # As published: `save_pretrained` leaves out of tokenizer_config.json what llama.cpp's converter reads there.
    path = folder / "tokenizer_config.json"
    before = json.loads(path.read_text())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path.write_text(json.dumps({**before, **json.loads(path.read_text())}, indent=1))
    eos = config.get_text_config().eos_token_id
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    return folder
