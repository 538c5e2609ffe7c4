"""From an artifact to a bundle folder: what other programs need beside the weights, and the manifest's facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge import bundle
from edge.bundle import Bundle
from edge.errors import InputError
from edge.export import families
from edge.export.artifact import Artifact
from edge.export.checkpoint import Checkpoint

# What programs look for beside the weights; a format may bring its own of the same name.
_BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "processor_config.json", "preprocessor_config.json",
)  # fmt: skip


def fill(folder: Path, artifact: Artifact, checkpoint: Checkpoint) -> None:
    """Copy the artifact's files and the checkpoint's tokenizer, template and configuration into `folder`.

    Copies, not links: a bundle that somebody edits must not change the cache.
    """
    for name in artifact.files:
        target = folder / bundle.safe_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.folder / name, target)
    for name in _BESIDE:
        source, target = checkpoint.folder / name, folder / name
        if source.is_file() and not target.exists():
            shutil.copyfile(source, target)
    _repeat_picture_processor(folder)
    template = folder / "chat_template.jinja"
    if (text := _template(folder)) is not None:
        if not template.exists():
            template.write_text(text, encoding="utf-8")
        _repeat_in_config(folder / "tokenizer_config.json", text)


def beside_bytes(artifact: Artifact, checkpoint: Checkpoint) -> int:
    """About what a bundle holds beside its weights: what `fill` would copy, and the artifact's own configuration."""
    own = [name for name in artifact.files if name.endswith(".json")]
    copied = [checkpoint.folder / name for name in _BESIDE if name not in own]
    template = _template(checkpoint.folder) or ""
    written = 2 * len(template.encode()) if not (checkpoint.folder / "chat_template.jinja").is_file() else 0
    return written + sum(
        path.stat().st_size for path in (*(artifact.folder / name for name in own), *copied) if path.is_file()
    )


def draft(
    folder: Path,
    name: str,
    artifact: Artifact,
    checkpoint: Checkpoint,
    *,
    kv_element_bytes: float,
    text: Checkpoint | None = None,
) -> Bundle:
    """The manifest of a packed folder before anything is proven; `text` is the text part of a model that sees."""
    from edge.runtimes.chat_template import ChatTemplate

    template = ChatTemplate.load(folder)
    files = bundle.list_files(folder)
    config = checkpoint.text_config if text is None else text.config
    kv_bytes = kv_bytes_per_token(config, kv_element_bytes)
    return Bundle(
        name=name,
        family=checkpoint.family,
        format=artifact.format,
        quantization=artifact.quantization,
        model_file=artifact.model_file,
        context_length=artifact.context_length,
        vocab_size=_positive(config, "vocab_size"),
        stop_ids=tuple(sorted({*stop_ids(folder), *_ids(checkpoint.text_config.get("eos_token_id"))})),
        source={
            "name": checkpoint.name,
            "model_type": checkpoint.model_type,
            "parameters": checkpoint.n_parameters,
            "facts": families.of(checkpoint.config, checkpoint.name).facts(checkpoint),
            "files": dict(sorted(checkpoint.identity.items())),
        },
        files=files,
        proven=False,
        licence=checkpoint.licence,
        template_sha256=template.sha256 if template else None,
        memory={
            "weights_bytes": sum((folder / f).stat().st_size for f in artifact.files if not f.endswith(".json")),
            **({"unpacked_bytes": unpacked} if (unpacked := artifact.plan.get("unpacked_bytes")) else {}),
            "kv_bytes_per_token": kv_bytes,
            "kv_bytes_at_context": kv_bytes * artifact.context_length,
        },
        plan=dict(artifact.plan),
        tools=dict(sorted(artifact.tools.items())),
        parts=dict(sorted(artifact.parts.items())),
        image=dict(sorted(artifact.image.items())),
    )


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Every id that ends an answer, from all the places where checkpoints say so."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _json(folder / name).get("eos_token_id")
        found.update(_ids(value))
    token = _json(folder / "tokenizer_config.json").get("eos_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if isinstance(text, str):
        from edge.runtimes.tokenizer import Tokenizer

        if (i := Tokenizer.load(folder).id_of(text)) is not None:
            found.add(i)
    return tuple(sorted(found))


def _ids(value: Any) -> list[int]:
    return [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)]


def model_context_length(checkpoint: Checkpoint) -> int:
    """How many positions the source was made for."""
    return _positive(checkpoint.text_config, "max_position_embeddings")


def _repeat_in_config(path: Path, template: str) -> None:
    """Put the template into tokenizer_config.json too: transformers.js looks nowhere else."""
    config = _json(path)
    if path.is_file() and "chat_template" not in config:
        path.write_text(json.dumps({**config, "chat_template": template}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _repeat_picture_processor(folder: Path) -> None:
    """Put the processor of pictures into a file of its own too: transformers.js looks nowhere else."""
    images, path = _json(folder / "processor_config.json").get("image_processor"), folder / "preprocessor_config.json"
    if isinstance(images, dict) and not path.exists():
        path.write_text(json.dumps(images, indent=2) + "\n", "utf-8")


def _template(folder: Path) -> str | None:
    """The template inside tokenizer_config.json, for programs that look for the file of its own."""
    from edge.runtimes.chat_template import ChatTemplate

    template = ChatTemplate.load(folder)
    return template.source if template else None


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise InputError(f"config.json: {key} must be a positive whole number, found {value!r}")
    return value


def kv_bytes_per_token(config: Mapping[str, Any], element_bytes: float) -> int:
    """Keys and values of one position in every layer."""
    kv_heads = config.get("num_key_value_heads") or _positive(config, "num_attention_heads")
    return round(2 * _positive(config, "num_hidden_layers") * int(kv_heads) * head_width(config) * element_bytes)


def head_width(config: Mapping[str, Any]) -> int:
    """Elements of one head's key."""
    return int(config.get("head_dim") or _positive(config, "hidden_size") // _positive(config, "num_attention_heads"))


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
