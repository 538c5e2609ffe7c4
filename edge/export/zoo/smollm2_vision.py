"""SmolLM2 that sees: a small SigLIP tower and a projector in front of it, in LLaVA's layout.

What was trained here is in `adapters/smollm2-vision` as float16; the rest are the weights of `smollm2`.
Both are put together in the cache, in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.export.checkpoint import Checkpoint
from edge.export.zoo._assemble import Tensors, adapted, assembled, side_files
from edge.find import load
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

_DECODER = "language_model."
IMAGE_SIZE, PATCH_SIZE = 96, 16
N_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
IMAGE_TOKEN, IMAGE_TOKEN_ID = "<image>", 49152
VOCAB_SIZE = 49216  # with <image>, padded to a multiple of 64
VISION_CONFIG: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 192,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_channels": 3,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "vision_use_head": False,
}
LLAVA_CONFIG: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "dtype": "float32",
    "image_seq_length": N_IMAGE_TOKENS,
    "image_token_index": IMAGE_TOKEN_ID,
    "multimodal_projector_bias": True,
    "projector_hidden_act": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "vision_config": VISION_CONFIG,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
IMAGE_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "SiglipImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
PROCESSOR: dict[str, Any] = {
    "processor_class": "LlavaProcessor",
    "image_token": IMAGE_TOKEN,
    "num_additional_image_tokens": 0,
    "patch_size": PATCH_SIZE,
    "vision_feature_select_strategy": "full",
}
# Pictures come before the words of their message, wherever its parts have them; no system message is added.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def open_zoo(*, progress: Progress) -> Checkpoint:
    """The assembled checkpoint; it is made once, into the cache, and held to the hash that was scored."""
    base = load("edge.export.zoo", "smollm2").open_zoo(progress=progress)
    return assembled("smollm2-vision", base, tensors, files, code=__name__)


def tensors(base: Checkpoint, learned: Mapping[str, np.ndarray]) -> Tensors:
    """The decoder with its adapters merged and room for <image>, then tower and projector as they were learned."""
    decoder = {n.removeprefix(_DECODER): w for n, w in learned.items() if n.startswith(_DECODER)}
    for name, weight in adapted(base, decoder):
        yield _DECODER + name, widen(weight) if name == "model.embed_tokens.weight" else weight
    for name, weight in learned.items():
        if not name.startswith(_DECODER):
            yield name, weight.astype("float32")


def widen(embedding: np.ndarray) -> np.ndarray:
    """Rows for <image> and the padding: too small to be ever said, but not 0, which some quantizers divide by."""
    import numpy as np

    rows = np.tile(embedding[:1] / 128, (VOCAB_SIZE - len(embedding), 1))
    return np.concatenate([embedding, rows])


def files(base: Checkpoint) -> dict[str, str]:
    """Configuration, tokenizer, processor and template."""
    made = side_files(base)
    text = {k: v for k, v in base.config.items() if k != "torch_dtype"} | {"dtype": "float32", "vocab_size": VOCAB_SIZE}
    tokenizer = json.loads(made["tokenizer.json"])
    image = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": IMAGE_TOKEN_ID, "content": IMAGE_TOKEN, **image})
    changed = {
        "config.json": LLAVA_CONFIG | {"text_config": text},
        "preprocessor_config.json": IMAGE_PROCESSOR,
        "processor_config.json": PROCESSOR | {"image_processor": IMAGE_PROCESSOR},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": json.loads(made["tokenizer_config.json"]) | {"processor_class": "LlavaProcessor"},
    }
    made |= {name: json.dumps(data, indent=2) + "\n" for name, data in changed.items()}
    return made | {"chat_template.jinja": CHAT_TEMPLATE}
