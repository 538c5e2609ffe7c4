"""Look at a bundle, a checkpoint or a model file before using it.

Reads headers only; no weights are loaded and no runtime is started.

examples:
  edge inspect out/SmolLM2-135M-Instruct-gguf-q4_k_m
  edge inspect out/SmolLM2-135M-Instruct-gguf-q4_k_m --check
  edge inspect ./my-model --json
  edge inspect model.gguf
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge import bundle
from edge.find import load, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="bundle, checkpoint (folder, hub id, built-in) or model file")
    parser.add_argument("--check", action="store_true", help="hash every file of a bundle against its manifest")
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
    path = Path(args.target).expanduser()
    if (path / bundle.MANIFEST).is_file():
        return _bundle(path, check=args.check)
    if args.check:
        bundle.read(path)  # says that there is no bundle here, and how to make one
    suffix = path.suffix.lower().removeprefix(".")
    if path.is_file() and suffix in names("edge.export.formats"):
        return {"file": str(path), **load("edge.export.formats", suffix).inspect(path)}
    return _checkpoint(args.target, tensors=args.tensors)


def _bundle(folder: Path, *, check: bool) -> dict[str, Any]:
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
        "memory": dict(found.memory),
        "source": {k: v for k, v in found.source.items() if k != "files"},
        "tools": dict(found.tools),
        "files": {f.path: f.size_bytes for f in found.files},
    }
    if check:
        facts["checked"] = f"{len(found.files)} files have the manifest's sha256"
    if found.quality:
        facts["quality"] = dict(found.quality)
    return facts


def _checkpoint(source: str, *, tensors: bool) -> dict[str, Any]:
    from edge.export import families, pack
    from edge.export.source import open_source

    checkpoint = open_source(source)
    by_type: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        by_type[info.dtype] = by_type.get(info.dtype, 0) + 1
    config = checkpoint.config
    facts: dict[str, Any] = {
        "checkpoint": checkpoint.name,
        "id": checkpoint.id,
        "family": checkpoint.family,
        "model_type": checkpoint.model_type,
        "parameters": checkpoint.n_parameters,
        **families.of(config, checkpoint.name).facts(checkpoint),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "attention_heads": config.get("num_attention_heads"),
        "key_value_heads": config.get("num_key_value_heads"),
        "vocab_size": config.get("vocab_size"),
        "context_length": pack.model_context_length(checkpoint),
        "tied_embedding": bool(config.get("tie_word_embeddings")),
        "tensors": dict(sorted(by_type.items())),
        "licence": checkpoint.licence,
        "folder": str(checkpoint.folder),
        "inputs": dict(checkpoint.identity),
    }
    if tensors:
        facts["tensor_list"] = {n: f"{i.dtype} {list(i.shape)}" for n, i in checkpoint.tensors.items()}
    return facts


def _lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """`key  value`, nested objects indented; text from files cannot move the cursor."""
    width = max((len(k) for k, v in facts.items() if not isinstance(v, Mapping)), default=0)
    for key, value in facts.items():
        if isinstance(value, Mapping):
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
