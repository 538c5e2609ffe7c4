"""A Hugging Face folder: config.json, *.safetensors (sharded or not), tokenizer.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError
from edge.export import families, pooling
from edge.export.cache import hash_of
from edge.export.checkpoint import Checkpoint, TensorInfo
from edge.readers import safetensors

# What is read beside the weights, when it is there; all of it is part of the identity.
_SIDE_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "chat_template.json", "tokenizer.model", "vocab.json", "merges.txt",
    "processor_config.json", "preprocessor_config.json",
)  # fmt: skip
_JSON_LIMIT_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from an untrusted file of bounded size."""
    if path.stat().st_size > _JSON_LIMIT_BYTES:
        raise InputError(f"{path} is larger than {_JSON_LIMIT_BYTES >> 20} MiB, which no such file is")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is not sound JSON: {err}") from err
    if not isinstance(data, dict):
        raise InputError(f"{path}: wanted an object, found {type(data).__name__}")
    return data


def open_folder(folder: Path, *, name: str | None = None, licence: str | None = None) -> Checkpoint:
    """Read config and tensor headers, hash every input. No weights are loaded.

    Raises `UsageError` for what is missing or not supported, `InputError` for damage.
    """
    folder = folder.resolve()
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise UsageError(
            f"{folder} has no config.json, so it is no Hugging Face checkpoint",
            hint="give the folder that `save_pretrained` wrote, a hub id, or a .gguf file",
        )
    config = read_json(config_path)
    shards = _shards(folder)
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for tensor_name, row in safetensors.read_header(folder / shard).tensors.items():
            if tensor_name in tensors:
                raise InputError(f"tensor {tensor_name!r} is in both {tensors[tensor_name].file} and {shard}")
            tensors[tensor_name] = TensorInfo(tensor_name, row.dtype, row.shape, shard)
    family = families.of(config, folder.name)
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"{folder} has no tokenizer.json",
            hint="load it with transformers.AutoTokenizer and call save_pretrained: that writes one",
        )
    inputs = [n for n in _SIDE_FILES if (folder / n).is_file()] + pooling.files(folder) + shards
    checkpoint = Checkpoint(
        folder=folder,
        name=name or folder.name,
        family="",
        config=config,
        tensors=tensors,
        identity={n: hash_of(folder / n) for n in sorted(inputs)},
        licence=licence or _licence(folder),
    )
    if check := getattr(family, "check", None):
        check(checkpoint)
    return replace(checkpoint, family=family.label(checkpoint))


def _shards(folder: Path) -> list[str]:
    """Names of the weight files, each inside the folder and really there."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
            raise InputError(f"{index} has no weight_map from tensor to file name")
        found = sorted(set(weight_map.values()))
        for shard in found:
            if Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise InputError(f"{index} names a shard outside its folder: {shard!r}")
            if not (folder / shard).is_file():
                raise InputError(f"{folder} lacks the shard {shard}", hint="finish the download, then run it again")
        return found
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    if pickles := sorted(p.name for p in folder.glob("pytorch_model*.bin")):
        raise UsageError(
            f"{folder} holds its weights as pickle ({pickles[0]}), which can run code when it is loaded",
            hint="convert it in a place you trust: model.save_pretrained(folder, safe_serialization=True)",
        )
    raise UsageError(f"{folder} has no model.safetensors and no model.safetensors.index.json")


def _licence(folder: Path) -> str | None:
    """The licence that the model card's front matter names, if there is one."""
    card = folder / "README.md"
    if card.is_file() and card.stat().st_size < _JSON_LIMIT_BYTES:
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip() or None
    return None
