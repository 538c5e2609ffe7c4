"""A GGUF file of any quantization: dequantized, its names and its tokenizer given back.

What is made lies in the cache as a Hugging Face folder in float32, so that every format
has the same source; the identity stays that of the GGUF file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge
from edge.errors import InputError, UsageError, require
from edge.export import cache
from edge.export.checkpoint import Checkpoint
from edge.export.sources import gguf_tokenizer
from edge.export.sources.folder import open_folder
from edge.progress import Progress
from edge.readers.gguf import GgufHeader, GgufTensor, read_header

if TYPE_CHECKING:
    import numpy as np

_SHARD_BYTES = 2 << 30

# GGUF architecture -> (model_type, class); llama.cpp stores q and k of `permuted` ones in its own row order.
_ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM", True),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", False),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", False),
}
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Made by llama.cpp's converter from the config; the config is rebuilt from the metadata instead.
_DERIVED = {"rope_freqs.weight"}


def open_gguf(path: Path, *, name: str | None = None, progress: Progress) -> Checkpoint:
    """Dequantize `path` once into the cache and open that folder.

    Raises `UsageError` for an architecture or tokenizer that cannot be given back, and
    `InputError` for a damaged file.
    """
    require("gguf", extra="gguf", purpose=f"reading {path.name}")
    header = read_header(path)
    identity = {path.name: cache.hash_of(path)}
    key = cache.key(kind="gguf", inputs=identity, edge=edge.__version__)
    folder = cache.find("checkpoints", key)
    if folder is None:
        with cache.building("checkpoints", key) as work:
            _dequantize(path, header, work, progress)
        folder = cache.root() / "checkpoints" / key
    made = open_folder(folder)
    licence = header.metadata.get("general.license")
    return Checkpoint(**{**vars(made), "name": name or path.stem, "identity": identity, "licence": licence})


def _dequantize(path: Path, header: GgufHeader, work: Path, progress: Progress) -> None:
    meta = header.metadata
    arch = meta.get("general.architecture")
    if arch not in _ARCHITECTURES:
        raise UsageError(
            f"{path.name} holds the architecture {arch!r}, which cannot be given back as a checkpoint yet",
            hint=f"it can for: {', '.join(_ARCHITECTURES)}; or start from the original Hugging Face folder",
        )
    config = _config(path, header)
    gguf_tokenizer.write(meta, work)
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_shards(path, header, config, work, progress)


def _config(path: Path, header: GgufHeader) -> dict[str, Any]:
    """config.json from the metadata; every value that shapes the model is checked for presence."""
    meta = header.metadata
    arch = meta["general.architecture"]
    model_type, cls, _ = _ARCHITECTURES[arch]

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{arch}.{key}", default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1 << 40:
            raise InputError(f"{path.name}: the metadata {arch}.{key} is {value!r}, wanted a number above 0")
        return value

    n_heads, hidden = get("attention.head_count"), get("embedding_length")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise InputError(f"{path.name} has no token_embd.weight")
    eos = meta.get("tokenizer.ggml.eos_token_id")
    config: dict[str, Any] = {
        "architectures": [cls],
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": get("attention.head_count_kv", n_heads),
        "head_dim": get("attention.key_length", hidden // n_heads),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
        "rope_theta": float(get("rope.freq_base", 10000.0)),
        "vocab_size": embedding.shape[1],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos,
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }
    if f"{arch}.rope.scaling.type" in meta or "rope_freqs.weight" in header.tensors:
        raise UsageError(
            f"{path.name} uses RoPE scaling, which cannot be given back exactly from a GGUF file yet",
            hint="start from the original Hugging Face folder",
        )
    return config


def _write_shards(path: Path, header: GgufHeader, config: Mapping[str, Any], work: Path, progress: Progress) -> None:
    """Dequantize tensor by tensor; never more than one shard in memory."""
    import numpy as np
    from safetensors.numpy import save_file

    wanted = [t for t in header.tensors.values() if t.name not in _DERIVED]
    total = sum(t.n_elements for t in wanted)
    progress.start(f"dequantize {path.name}", total)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    shards: list[list[str]] = []
    batch: dict[str, np.ndarray] = {}
    done = batch_bytes = 0

    def flush() -> None:
        nonlocal batch, batch_bytes
        if batch:
            shards.append(sorted(batch))
            save_file(batch, work / f"part-{len(shards)}", metadata={"format": "pt"})
            batch, batch_bytes = {}, 0

    for tensor in wanted:
        source_name = hf_name(tensor.name, path)
        array = dequantize(data, tensor)
        if _ARCHITECTURES[header.metadata["general.architecture"]][2]:
            heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
            part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
            if part in heads:
                array = unpermute(array, int(config[heads[part]]))
        if batch_bytes + array.nbytes > _SHARD_BYTES:
            flush()
        batch[source_name] = np.ascontiguousarray(array)
        batch_bytes += array.nbytes
        done += tensor.n_elements
        progress.advance(done)
    flush()
    if len(shards) == 1:
        (work / "part-1").rename(work / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards, 1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        (work / f"part-{i}").rename(work / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total * 4}, "weight_map": weight_map}
    (work / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def hf_name(name: str, path: Path) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    *front, kind = name.split(".")
    stem = _NAMES.get(front[-1]) if front else None
    if kind in ("weight", "bias") and stem:
        if len(front) == 1:
            return f"{stem}.{kind}"
        if len(front) == 3 and front[0] == "blk" and front[1].isdigit():
            return f"model.layers.{front[1]}.{stem}.{kind}"
    raise UsageError(f"{path.name} holds the tensor {name!r}, whose place in a checkpoint is not known")


def dequantize(data: np.ndarray, tensor: GgufTensor) -> np.ndarray:
    """float32 in row-major order (outermost dimension first) from the file's bytes."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize as decode

    kind = GGMLQuantizationType[tensor.type]
    raw = data[tensor.offset : tensor.offset + tensor.n_bytes]
    shape = tensor.shape[::-1]
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.F64):
        dtype = {"F32": np.float32, "F16": np.float16, "F64": np.float64}[tensor.type]
        return raw.view(dtype).reshape(shape).astype(np.float32)
    rows = raw.reshape(*shape[:-1], -1)
    return np.asarray(decode(rows, kind), dtype=np.float32).reshape(shape)


def unpermute(array: np.ndarray, n_heads: int) -> np.ndarray:
    """Undo llama.cpp's row order of q and k: (head, pair, half) back to (head, half, pair)."""
    n, *rest = array.shape
    return array.reshape(n_heads, n // n_heads // 2, 2, *rest).swapaxes(1, 2).reshape(array.shape)
