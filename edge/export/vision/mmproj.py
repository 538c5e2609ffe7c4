"""`mmproj.gguf` for LLaVA: the vision part as llama.cpp's multimodal library reads it.

llama.cpp's converter makes it for many models, but of LLaVA's only Pixtral's. What its graph does
with such a file decides what is written (tools/mtmd/models/llava.cpp):

1. `feature_layer` and `block_count` are both the number of layers in use; without the first, one fewer runs.
2. A final layer norm would be applied if it were there, and LLaVA's features come before it: it is left out.
3. Without `use_gelu`, the activation is CLIP's quick one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError, require
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.vision.tower import feature_layer, unused

if TYPE_CHECKING:
    import numpy as np

_BLOCK = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_OTHER = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
    "linear_1.weight": "mm.0.weight",
    "linear_1.bias": "mm.0.bias",
    "linear_2.weight": "mm.2.weight",
    "linear_2.bias": "mm.2.bias",
}
_GELUS = {"quick_gelu": False, "gelu": True, "gelu_pytorch_tanh": True}


def target(name: str) -> str | None:
    """`vision_tower.encoder.layers.3.mlp.fc1.bias` -> `v.blk.3.ffn_up.bias`; `None` for what has no place."""
    for prefix in ("model.", "vision_tower.", "vision_model.", "multi_modal_projector."):
        name = name.removeprefix(prefix)
    if name in _OTHER:
        return _OTHER[name]
    parts = name.split(".")
    if parts[:2] == ["encoder", "layers"] and len(parts) >= 5:
        stem = _BLOCK.get(".".join(parts[3:-1]))
        return f"v.blk.{parts[2]}.{stem}.{parts[-1]}" if stem else None
    return None


def write(
    checkpoint: Checkpoint, vision: Sequence[str], rule: Mapping[str, Any], path: Path, *, half: bool
) -> tuple[Entry, ...]:
    """Write the file, its matrices in float16 if `half`; where every vision tensor went.

    Raises `UsageError` for what llama.cpp's graph cannot compute, `EdgeError` for a tensor without a place.
    """
    require("gguf", extra="gguf", purpose="writing a GGUF file")
    import gguf
    import numpy as np

    tower, text = _configs(checkpoint)
    layers = feature_layer({**checkpoint.config, "vision_config": tower})
    act = str(tower.get("hidden_act"))
    if act not in _GELUS:
        raise UsageError(f"{checkpoint.name} has the activation {act!r} in its vision part, which llama.cpp lacks")
    if tower["intermediate_size"] == tower["hidden_size"]:
        raise UsageError(
            f"the vision part of {checkpoint.name} has layers as wide inside as outside, which llama.cpp mistakes",
            hint="choose another format",
        )
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_type("mmproj")
    writer.add_name(checkpoint.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    if _GELUS[act]:
        writer.add_bool("clip.use_gelu", True)
    for key, value in (
        ("image_size", tower["image_size"]),
        ("patch_size", tower["patch_size"]),
        ("embedding_length", tower["hidden_size"]),
        ("feed_forward_length", tower["intermediate_size"]),
        ("attention.head_count", tower["num_attention_heads"]),
        ("projection_dim", text["hidden_size"]),
        ("block_count", layers),
    ):
        writer.add_uint32(f"clip.vision.{key}", int(value))
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", float(tower["layer_norm_eps"]))
    writer.add_array("clip.vision.feature_layer", [layers])
    writer.add_array("clip.vision.image_mean", [float(m) for m in rule["mean"] or (0.0, 0.0, 0.0)])
    writer.add_array("clip.vision.image_std", [float(s) for s in rule["std"] or (1.0, 1.0, 1.0)])

    entries, lost = [], []
    for name in vision:
        if reason := unused(checkpoint, name):
            entries.append(Entry((name,), (), "", 0, 0, "drop", reason))
            continue
        place = target(name)
        if place is None:
            lost.append(name)
            continue
        array = checkpoint.read(name)
        stored = _stored(place, array, half=half)
        writer.add_tensor(place, stored)
        kind = "F16" if stored.dtype == np.float16 else "F32"
        entries.append(Entry((name,), (place,), kind, stored.size, stored.nbytes))
    if lost:
        raise EdgeError(
            f"{len(lost)} vision tensors have no place in llama.cpp's file: {', '.join(lost[:3])}",
            hint="this architecture is not converted faithfully; nothing was written",
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check(checkpoint, path, entries, half=half)
    return tuple(entries)


def _stored(place: str, array: np.ndarray, *, half: bool) -> np.ndarray:
    """What goes into the file: matrices may be halved, never the patches, the positions and what has one dimension."""
    import numpy as np

    if half and array.ndim == 2 and place.endswith(".weight") and "position" not in place:
        return array.astype(np.float16)
    return np.ascontiguousarray(array, np.float32)


def _check(checkpoint: Checkpoint, path: Path, entries: Sequence[Entry], *, half: bool) -> None:
    """Every value in the file is the source's, read back. Raises `EdgeError` for the first that is not."""
    import numpy as np

    for name, place, array in read_back(path, [e for e in entries if e.target]):
        if not np.array_equal(array.reshape(-1), _stored(place, checkpoint.read(name), half=half).reshape(-1)):
            raise EdgeError(f"{name} changed on the way to GGUF: {place} holds other values")


def read_back(path: Path, entries: Sequence[Entry]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Source name, target name and stored values of each entry with one of both."""
    import numpy as np

    from edge.readers.gguf import read_header

    tensors = read_header(path).tensors
    for entry in entries:
        tensor = tensors[entry.target[0]]
        dtype = np.float16 if tensor.type == "F16" else np.float32
        array = np.memmap(path, dtype, "r", tensor.offset, tuple(reversed(tensor.shape)))
        yield entry.source[0], tensor.name, array


def _configs(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
    """Vision and text configuration with the defaults that checkpoints leave out."""
    import transformers

    whole = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    return whole.vision_config.to_dict(), whole.get_text_config().to_dict()
