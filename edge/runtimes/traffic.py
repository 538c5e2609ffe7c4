"""How many bytes one token makes a runtime read: what memory bandwidth is to be held against.

A file's size is not it. The embedding of a token is one row of a table, experts that were not chosen stay where they
are, and what a runtime has unpacked is larger than what the file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bundle import Bundle
from edge.errors import EdgeError
from edge.find import load

_EMBEDDING = re.compile(r"embed_tokens|token_embd|word_embeddings|\bwte\b|embed_in")
_HEAD = re.compile(r"lm_head|^output\.weight")
_TABLE = re.compile(r"(cos|sin)_cache")  # one row of it, as of an embedding


@dataclass(frozen=True)
class Traffic:
    """`weights_bytes` of each token, by the type they are stored as, and `kv_bytes` for each token before it."""

    weights_bytes: int
    kv_bytes: int
    by_type: Mapping[str, int]
    left_out: Mapping[str, int]
    experts: bool = False  # whether the model has any, skipped or not

    def at(self, depth: int) -> int:
        """Bytes of a token that has `depth` tokens before it."""
        return self.weights_bytes + depth * self.kv_bytes

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "weights_bytes": self.weights_bytes, "kv_bytes_per_token": self.kv_bytes,
            "by_type": dict(self.by_type), "left_out": dict(self.left_out),
        }  # fmt: skip


def of(folder: Path, bundle: Bundle) -> Traffic | None:
    """From the headers of the decoder's file; `None` for a file whose header tells nothing.

    1. The token embedding is left out, all of it but one row, unless it is the output matrix as well.
    2. Of experts that the runtime can skip, the chosen share counts.
    3. Where the runtime unpacks weights (the manifest says so), every parameter is four bytes.
    """
    try:
        weights = load("edge.runtimes.weights", bundle.format).read(Path(folder) / bundle.model_file)
    except EdgeError:
        return None
    if not weights:
        return None
    tied = not any(_HEAD.search(w.name) for w in weights)
    share = chosen_share(_config(folder))
    by_type: dict[str, float] = {}
    left_out = {"embedding": 0.0, "experts": 0.0, "tables": 0.0}
    for weight in weights:
        read = float(weight.n_bytes)
        if _TABLE.search(weight.name):
            left_out["tables"] += read
            continue
        if not tied and _EMBEDDING.search(weight.name) and not _HEAD.search(weight.name):
            left_out["embedding"] += read
            continue
        if weight.chosen_only:
            left_out["experts"] += (1 - share) * read
            read *= share
        by_type[weight.type] = by_type.get(weight.type, 0.0) + read
    memory = dict(bundle.memory)
    if memory.get("unpacked_bytes"):
        by_type = {"float32, unpacked": 4.0 * float(bundle.source.get("parameters") or 0)}
    return Traffic(
        weights_bytes=round(sum(by_type.values())),
        kv_bytes=int(memory.get("kv_bytes_per_token") or 0),
        by_type={name: round(size) for name, size in sorted(by_type.items())},
        left_out={name: round(size) for name, size in left_out.items() if size},
        experts=share < 1,
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def chosen_share(config: Mapping[str, Any]) -> float:
    """Experts that one token uses, of all that a layer has; 1 for a model without experts."""
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    used = config.get("num_experts_per_tok")
    there = next(
        (config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if config.get(key)), None
    ) if used else None  # fmt: skip
    return min(1.0, int(used) / int(there)) if used and there else 1.0
