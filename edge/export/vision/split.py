"""A checkpoint that sees, in two: the text part becomes a checkpoint of its own, the rest is vision.

The text part goes the way of every text model: same converters, same calibration, same account
of tensors. It lies in the cache, its tensors byte for byte those of the source under the names that
a text model gives them.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError, require
from edge.export import cache
from edge.export.checkpoint import Checkpoint
from edge.readers import safetensors

_VISION = re.compile(
    r"(model\.)?(vision_tower|vision_model|multi_modal_projector|connector|visual|model\.vision_model|model\.connector)\."
)
# How checkpoints call their text part, and what a text model calls the same.
_TEXT = (
    (re.compile(r"(model\.)?language_model\.model\."), "model."),
    (re.compile(r"(model\.)?language_model\.lm_head\."), "lm_head."),
    (re.compile(r"model\.language_model\."), "model."),
    (re.compile(r"model\.text_model\."), "model."),
    (re.compile(r"model\.(?=layers\.|embed_tokens\.|norm\.)"), "model."),
    (re.compile(r"lm_head\."), "lm_head."),
)
_SIDE_FILES = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "tokenizer.model", "vocab.json", "merges.txt",
)  # fmt: skip
# Text parts that are another model type once they stand alone.
_ALONE = {"qwen2_5_vl_text": "qwen2", "qwen2_vl_text": "qwen2"}
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class Split:
    """`text` is a whole checkpoint; `names` maps its tensors to the source's; `vision` are the other ones."""

    text: Checkpoint
    names: Mapping[str, str]
    vision: tuple[str, ...]


def split(checkpoint: Checkpoint) -> Split:
    """The two parts of `checkpoint`; the text part is written into the cache once.

    Raises `UsageError` when the text part is of a kind that is not exported, `InputError` for a
    tensor that belongs to neither part.
    """
    names, vision = sort(checkpoint)
    key = cache.key(checkpoint=checkpoint.id, code=cache.code_of(__name__))
    folder = cache.find("text-parts", key)
    if folder is None:
        config = text_config(checkpoint)
        with cache.building("text-parts", key) as work:
            config["tie_word_embeddings"] = "lm_head.weight" not in names
            (work / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            for name in _SIDE_FILES:
                if (checkpoint.folder / name).is_file():
                    shutil.copyfile(checkpoint.folder / name, work / name)
            _write(checkpoint, names, work / "model.safetensors")
        folder = cache.root() / "text-parts" / key
    from edge.export.sources.folder import open_folder

    made = open_folder(folder, name=checkpoint.name, licence=checkpoint.licence)
    return Split(replace(made, family=checkpoint.family, sees=True), names, vision)


def sort(checkpoint: Checkpoint) -> tuple[dict[str, str], tuple[str, ...]]:
    """Text name -> source name, and the names of the vision part."""
    names: dict[str, str] = {}
    vision = []
    for name in checkpoint.tensors:
        if _VISION.match(name):
            vision.append(name)
            continue
        for pattern, prefix in _TEXT:
            if found := pattern.match(name):
                short = prefix + name[found.end() :]
                break
        else:
            raise InputError(
                f"{checkpoint.name} holds the tensor {name!r}, which is neither text nor vision",
                hint=f"model type {checkpoint.model_type}: a variant of it that is not exported",
            )
        if short in names:
            raise InputError(f"{checkpoint.name} has its text part twice: {names[short]!r} and {name!r}")
        names[short] = name
    if not vision:
        raise InputError(f"{checkpoint.name} has no vision tensors although it is of type {checkpoint.model_type}")
    return names, tuple(vision)


def n_parameters(checkpoint: Checkpoint) -> tuple[int, int]:
    """Stored parameters of the text part and of the vision part."""
    names, vision = sort(checkpoint)
    count = {name: math.prod(info.shape) for name, info in checkpoint.tensors.items()}
    return sum(count[name] for name in names.values()), sum(count[name] for name in vision)


def text_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The text part's own config.json, with the defaults that checkpoints leave out."""
    require("transformers", extra="export", purpose="reading a model's configuration")
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    whole = transformers.AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    found: dict[str, Any] = whole.get_text_config().to_dict()
    kind = _ALONE.get(str(found.get("model_type")), str(found.get("model_type")))
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if architecture is None:
        raise UsageError(f"the text part of {checkpoint.name} is of type {kind!r}, which does not stand alone")
    for key in ("_name_or_path", "transformers_version", "vision_config"):
        found.pop(key, None)
    if checkpoint.model_type == "gemma3":  # how many rows of a picture see each other: a decoder takes them at once
        found["mm_tokens_per_image"] = int(checkpoint.config.get("mm_tokens_per_image", 256))
    dtype = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or found.get("dtype")
    # A decoder that places rows of a picture in three dimensions is another one for llama.cpp, which goes by the
    # architecture; on text alone all three are the same, and the model type's own decoder is right.
    sections = "mrope_section" in (found.get("rope_parameters") or {})
    architectures = list(checkpoint.config["architectures"]) if sections else [architecture]
    return {**found, "model_type": kind, "architectures": architectures, "dtype": dtype or "float32"}


def _write(checkpoint: Checkpoint, names: Mapping[str, str], path: Path) -> None:
    """One safetensors file of the text tensors, copied in pieces: nothing is decoded, little is in memory."""
    headers = {f: safetensors.read_header(checkpoint.folder / f) for f in {t.file for t in checkpoint.tensors.values()}}
    rows: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    order = sorted(names)
    for name in order:
        info = checkpoint.tensors[names[name]]
        tensor = headers[info.file].tensors[info.name]
        size = tensor.end - tensor.begin
        rows[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(rows, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    files = {f: (checkpoint.folder / f).open("rb") for f in headers}
    try:
        with path.open("wb") as out:
            out.write(len(header).to_bytes(8, "little") + header)
            for name in order:
                info = checkpoint.tensors[names[name]]
                tensor = headers[info.file].tensors[info.name]
                source = files[info.file]
                source.seek(tensor.begin)
                left = tensor.end - tensor.begin
                while left:
                    piece = source.read(min(left, _CHUNK_BYTES))
                    if not piece:
                        raise InputError(f"{info.file} ended in the middle of {info.name}")
                    out.write(piece)
                    left -= len(piece)
    finally:
        for file in files.values():
            file.close()
