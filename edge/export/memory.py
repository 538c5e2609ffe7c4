"""What running a checkpoint takes before it is exported: weights, KV cache and working memory, per format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.export import artifact, pack
from edge.export.checkpoint import Checkpoint
from edge.export.vision import split
from edge.find import load, names

_CHUNK = {"gguf": 512, "onnx": 128, "tflite": 128}  # tokens that an engine computes at once
_LOGITS_ROWS_BYTES = 12 << 20  # llama.cpp's session keeps logits of that many positions
_PRECISIONS = ("16bit", "8bit", "4bit")


def table(checkpoint: Checkpoint, context_length: int) -> dict[str, dict[str, dict[str, int]]]:
    """format -> portable precision -> bytes of weights, cache and working memory with `context_length` tokens, and all.

    Estimates, from sizes alone:

    1. Weights are the stored parameters times the bits per weight of the quantization; those of a vision part
       keep 16 bits.
    2. The cache is keys and values of every layer for every position, in the engine's type.
    3. Working memory is what one chunk of tokens needs at its widest point (hidden states, queries, keys and
       values, the feed-forward's two halves), its attention scores, and its logits, in float32.
    """
    out: dict[str, dict[str, dict[str, int]]] = {}
    text, vision = split.n_parameters(checkpoint) if checkpoint.family == "vlm" else (checkpoint.n_parameters, 0)
    for name in names("edge.export.formats"):
        module = load("edge.export.formats", name)
        working = _working_bytes(checkpoint.text_config, name, context_length)
        out[name] = {}
        portable = artifact.portable(module, checkpoint.family)
        for precision in _PRECISIONS:
            if precision not in portable:
                continue
            kind = module.QUANTIZATIONS[portable[precision]]
            cache = pack.kv_bytes_per_token(checkpoint.text_config, module.kv_element_bytes(kind.name)) * context_length
            weights = int(text * kind.bits_per_weight / 8) + 2 * vision
            out[name][kind.name] = {
                "weights_bytes": weights,
                "cache_bytes": cache,
                "working_bytes": working,
                "total_bytes": weights + cache + working,
            }
    return out


def _working_bytes(config: Mapping[str, Any], format_name: str, context_length: int) -> int:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    inner = config.get("intermediate_size") or config.get("moe_intermediate_size") or 4 * hidden
    tokens = min(_CHUNK[format_name], context_length)
    wide = 2 * hidden + 3 * hidden + 2 * int(inner)
    # llama.cpp's flash attention never holds all scores; one head's row at a time is enough.
    scores = 0 if format_name == "gguf" else tokens * heads * context_length
    vocab = int(config["vocab_size"])
    rows = max(1, _LOGITS_ROWS_BYTES // (4 * vocab)) if format_name == "gguf" else tokens
    logits = (1 if format_name == "tflite" else min(rows, tokens)) * vocab
    return 4 * (tokens * wide + scores + logits)
