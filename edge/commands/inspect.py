"""Look at a bundle, a checkpoint or a model file before using it.

Reads headers only; no weights are loaded and no runtime is started. A checkpoint shows its parameters (all of
them, and those that compute one token), layers, experts, vision tower, licence and chat template, and what each
format would take in memory with --context tokens.

examples:
  edge inspect out/SmolLM2-135M-Instruct-gguf-q4_k_m
  edge inspect out/SmolLM2-135M-Instruct-gguf-q4_k_m --check
  edge inspect smollm2 --context 4096
  edge inspect ./my-model --json
  edge inspect model.gguf
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge import bundle
from edge.errors import EdgeError, UsageError
from edge.find import load, names

_CONTEXT_LENGTH = 2048  # what an export makes room for unless it is told otherwise
_PARTS = {"weights_bytes", "cache_bytes", "working_bytes", "total_bytes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="bundle, checkpoint (folder, hub id, built-in) or model file")
    parser.add_argument("--check", action="store_true", help="hash every file of a bundle against its manifest")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens to say the memory for (default: 2048, or the model's)"
    )
    parser.add_argument("--tensors", action="store_true", help="list a checkpoint's tensors as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    facts = _facts(args)
    if args.json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        for line in _lines(facts):
            print(line)
    return 0


def _facts(args: argparse.Namespace) -> dict[str, Any]:
    path = Path(os.path.expanduser(args.target))
    if (path / bundle.MANIFEST).is_file():
        return _bundle(path, check=args.check, context=args.context)
    if args.check:
        bundle.read(path)  # says that there is no bundle here, and how to make one
    suffix = path.suffix.lower().removeprefix(".")
    if path.is_file() and suffix in names("edge.export.formats"):
        return {"file": str(path), **load("edge.export.formats", suffix).inspect(path)}
    return _checkpoint(args.target, tensors=args.tensors, context=args.context)


def _bundle(folder: Path, *, check: bool, context: int | None) -> dict[str, Any]:
    found = bundle.check(folder) if check else bundle.read(folder)
    facts: dict[str, Any] = {
        "bundle": found.name,
        "id": found.id,
        "family": found.family,
        "format": found.format,
        "quantization": found.quantization,
        "proven": found.proven,
        "size_bytes": found.size_bytes,
        "context_length": found.context_length,
        "licence": found.licence,
        "template": _template(folder),
        **{k: v for k, v in _shape(_config(folder)).items() if k != "context_length"},
        "pictures": _pictures(found),
        "memory": _memory_of(found, context),
        "source": {k: v for k, v in found.source.items() if k != "files"},
        "tools": dict(found.tools),
        "files": {f.path: f.size_bytes for f in found.files},
    }
    if check:
        facts["checked"] = f"{len(found.files)} files have the manifest's sha256"
    if found.quality:
        facts["quality"] = dict(found.quality)
    return facts


def _checkpoint(source: str, *, tensors: bool, context: int | None) -> dict[str, Any]:
    from edge.export import families, memory, pack
    from edge.export.source import open_source

    checkpoint = open_source(source)
    by_type: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        by_type[info.dtype] = by_type.get(info.dtype, 0) + 1
    config = checkpoint.config
    most = pack.model_context_length(checkpoint)
    length = context or min(most, _CONTEXT_LENGTH)
    if not 0 < length <= most:
        raise UsageError(f"a context of {length} tokens was asked for; {checkpoint.name} was made for 1 to {most}")
    facts: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "id": checkpoint.id,
        "family": checkpoint.family,
        "model_type": checkpoint.model_type,
        "parameters": checkpoint.n_parameters,
        **families.of(config, checkpoint.name).facts(checkpoint),
        **_shape(config),
        "tensors": dict(sorted(by_type.items())),
        "licence": checkpoint.licence,
        "template": _template(checkpoint.folder),
        f"memory with {length:,} tokens, estimated": memory.table(checkpoint, length),
        "folder": str(checkpoint.folder),
        "inputs": dict(checkpoint.identity),
    }
    if tensors:
        facts["tensor_list"] = {n: f"{i.dtype} {list(i.shape)}" for n, i in checkpoint.tensors.items()}
    return facts


def _config(folder: Path) -> dict[str, Any]:
    from edge.export.sources.folder import read_json

    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the decoder, and of the tower before it when there is one, in the words of config.json."""
    nested = config.get("text_config")
    text = nested if isinstance(nested, Mapping) else config
    facts: dict[str, Any] = {
        "layers": text.get("num_hidden_layers"),
        "hidden_size": text.get("hidden_size"),
        "attention_heads": text.get("num_attention_heads"),
        "key_value_heads": text.get("num_key_value_heads"),
        "vocab_size": text.get("vocab_size"),
        "context_length": text.get("max_position_embeddings"),
        "sliding_window": None if text.get("use_sliding_window") is False else text.get("sliding_window"),
        "tied_embedding": bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings"))),
    }
    tower = config.get("vision_config")
    if isinstance(tower, Mapping):
        facts["vision"] = {
            "layers": tower.get("num_hidden_layers", tower.get("depth")),
            "hidden_size": tower.get("hidden_size"),
            "image_size": tower.get("image_size"),
            "patch_size": tower.get("patch_size"),
        }
    return facts


def _pictures(found: bundle.Bundle) -> dict[str, Any] | None:
    """What the bundle makes of a picture: how it is cut, into views of which size, and how many tokens a view takes."""
    kept = ("kind", "width", "height", "patch", "n_tokens", "bidirectional")
    return {k: v for k, v in found.image.items() if k in kept} or None


def _template(folder: Path) -> dict[str, Any] | str:
    """Hash of the chat template and whether it shows tools; in words when there is none, or none that can be read."""
    from edge.export.families.lam import shows_tools
    from edge.runtimes.chat_template import ChatTemplate

    try:
        template = ChatTemplate.load(folder)
    except EdgeError as err:
        return err.message
    return "none" if template is None else {"sha256": template.sha256, "shows_tools": shows_tools(template)}


def _memory_of(found: bundle.Bundle, context: int | None) -> dict[str, Any]:
    """The manifest's memory table, for another context when one is asked for."""
    table = dict(found.memory)
    length = context or found.context_length
    if not 0 < length <= found.context_length:
        raise UsageError(f"a context of {length} tokens was asked for; {found.name} holds 1 to {found.context_length}")
    cache = table.get("kv_bytes_per_token", 0) * length
    weights = table.get("weights_bytes", 0) + table.get("unpacked_bytes", 0)
    return {**table, "context": length, "total_bytes": weights + cache, "cache_bytes": cache}


def _lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """`key  value`, nested objects indented; text from files cannot move the cursor."""
    width = max((len(k) for k, v in facts.items() if not isinstance(v, Mapping)), default=0)
    for key, value in facts.items():
        if isinstance(value, Mapping) and set(value) == _PARTS:
            parts = " + ".join(f"{value[f'{p}_bytes'] / 1e6:,.1f} MB {p}" for p in ("weights", "cache", "working"))
            yield f"{indent}{_printable(key)}  {value['total_bytes'] / 1e6:,.1f} MB = {parts}"
        elif isinstance(value, Mapping):
            yield f"{indent}{_printable(key)}:"
            yield from _lines(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{_printable(key):<{width}}  {_printable(_plain(key, value))}"


def _plain(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("_bytes"):
        return f"{value:,} ({value / 1e6:.1f} MB)" if value >= 100_000 else f"{value:,}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
