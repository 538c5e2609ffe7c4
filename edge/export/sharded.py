"""Write a checkpoint's folder: tensors one after the other, in shards, so that one shard is in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edge.errors import require

_SHARD_BYTES = 2 << 30


def save(tensors: Iterable[tuple[str, Any]], config: Mapping[str, Any], folder: Path) -> None:
    """config.json, and the torch tensors in shards with their index, below `folder`."""
    require("safetensors", extra="export", purpose="writing a checkpoint")
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    batch: dict[str, Any] = {}
    weight_map: dict[str, str] = {}
    size = shard = 0

    def flush() -> None:
        nonlocal batch, size, shard
        shard += 1
        name = f"model-{shard:05}.safetensors"
        save_file(batch, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(batch, name))
        batch, size = {}, 0

    for name, tensor in tensors:
        n_bytes = tensor.numel() * tensor.element_size()
        if batch and size + n_bytes > _SHARD_BYTES:
            flush()
        batch[name] = tensor.contiguous()
        size += n_bytes
    flush()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def copy_side_files(source: Path, folder: Path) -> None:
    """Tokenizer, template and the like as they are; the configuration and the index are written with the weights."""
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".model", ".txt") and not path.name.endswith(".index.json"):
            (folder / path.name).write_bytes(path.read_bytes())
