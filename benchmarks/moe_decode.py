"""Is a mixture answered faster when only the chosen experts are computed, and as fast as by the loop of llama.cpp?

    python -m benchmarks.moe_decode [--rounds 7] [--threads 2] [--source smollm2-moe]

ONNX: our bundle against the same checkpoint, quantized alike (round to nearest, same bits and blocks), as mobius
writes it: every expert computed for every token. Once with four experts, once with eight of the same shape, made
by doubling the four and adding noise, so that no two are alike. GGUF: our session against the C loop.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import decode_gguf, race
from benchmarks.race import Claim, Contestant
from edge import bundle
from edge.export import cache, experts, keep_experts, onnx_experts, pack
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.formats import onnx
from edge.export.source import open_source

_NOISE = 0.1  # of each matrix's own spread


def all_experts(source: str | Path, quantization: str, context_length: int = 2048) -> Path:
    """A bundle of the graph in which every expert is computed; otherwise as `edge export` makes it."""
    checkpoint = open_source(source)
    key = cache.key(checkpoint=checkpoint.id, quantization=quantization, code=cache.code_of(onnx.__name__))
    folder = cache.root() / "benchmarks" / f"all-experts-{key}"
    if folder.is_dir():
        return folder
    work = folder.with_name(folder.name + ".part")
    for part in ("full", "small", "bundle"):
        (work / part).mkdir(parents=True, exist_ok=True)
    with mock.patch.object(onnx_experts, "fuse", _leave):
        full = onnx.convert(checkpoint, work / "full", context_length=context_length)
    made = onnx.quantize(full, checkpoint, quantization, work / "small", calibration=None)
    pack.fill(work / "bundle", made, checkpoint)
    bundle.write(pack.draft(work / "bundle", "all-experts", made, checkpoint, kv_element_bytes=4), work / "bundle")
    (work / "bundle").rename(folder)
    shutil.rmtree(work)
    return folder


def _leave(graph: Any, checkpoint: Checkpoint, scratch: Path) -> tuple[Entry, ...]:
    """In the place of `onnx_experts.fuse`: the loop stays, and the ledger learns where its matrices are from."""
    entries = []
    for layer in experts.layers(checkpoint):
        for e in range(experts.count(checkpoint.config)):
            for part, source in zip(("gate", "up", "down"), layer.keys(e), strict=True):
                target = f"model.layers.{layer.index}.mlp.experts.{e}.{part}_proj.weight_t"
                stored = graph.weights[target]
                entries.append(Entry((source,), (target,), "float32", stored.size, stored.nbytes, "permute"))
    return tuple(entries)


def doubled(source: str | Path) -> Path:
    """A Mixtral checkpoint with twice the experts, the second half with noise, in the cache as float16."""
    checkpoint = open_source(source)
    key = cache.key(kind="doubled experts", checkpoint=checkpoint.id, noise=_NOISE)
    folder = cache.find("checkpoints", key)
    if folder is None:
        n = experts.count(checkpoint.config)
        twice = {layer.index: [*range(n), *range(n)] for layer in experts.layers(checkpoint)}
        patched = mock.patch.object(keep_experts, "_tensors", _doubled_tensors)
        with cache.building("checkpoints", key) as work, patched:
            keep_experts._write(checkpoint, twice, 2 * n, work)
        folder = cache.root() / "checkpoints" / key
    return folder


def _doubled_tensors(checkpoint: Checkpoint, _: Any) -> Iterator[tuple[str, Any]]:
    import torch

    draw = np.random.default_rng(0)
    layers = experts.layers(checkpoint)
    routers = {layer.router for layer in layers}
    n = experts.count(checkpoint.config)
    second = {
        name: name.replace(f".experts.{e}.", f".experts.{e + n}.")
        for layer in layers
        for e, names in enumerate(layer.experts)
        for name in names
    }
    for name in checkpoint.tensors:
        values = checkpoint.read(name)
        noisy = values
        if name in routers or name in second:
            noisy = values + _NOISE * values.std() * draw.standard_normal(values.shape).astype(np.float32)
        both = np.concatenate([values, noisy]) if name in routers else values
        yield name, torch.from_numpy(both.astype(np.float16))
        if name in second:
            yield second[name], torch.from_numpy(noisy.astype(np.float16))


def main() -> int:
    parser = race.arguments(__doc__)
    parser.add_argument("--source", default="smollm2-moe", help="a mixture in Mixtral's layout (smollm2-moe)")
    parser.add_argument("--quant", default="int4-rtn-32,int8", help="quantizations in ONNX (int4-rtn-32,int8)")
    args = parser.parse_args()
    words = (args.threads, 64, args.tokens)
    contestants, claims = [], []
    for source, about, at_least in ((args.source, "4 experts", 1.4), (str(doubled(args.source)), "8 experts", 2.0)):
        for quantization in args.quant.split(","):
            ours, theirs = f"chosen experts, {about}, {quantization}", f"all experts, {about}, {quantization}"
            chosen = race.bundle(source, "onnx", quantization)
            contestants += [
                Contestant(ours, race.contestant("edge_session", chosen, *words)),
                Contestant(theirs, race.contestant("edge_session", all_experts(source, quantization), *words)),
            ]
            claims.append(
                Claim("decode_tokens_per_s", ours, theirs, at_least=at_least, says=f"ONNX {quantization}, {about}")
            )
    loop, folder = decode_gguf.native_loop(), race.bundle(args.source, "gguf", "q4_0")
    contestants += [
        Contestant("edge gguf q4_0", race.contestant("edge_session", folder, *words)),
        Contestant("llama.cpp in C q4_0", (str(loop), str(folder / "model.gguf"), *map(str, words))),
    ]
    claims.append(
        Claim("decode_tokens_per_s", "edge gguf q4_0", "llama.cpp in C q4_0", at_least=0.97, says="GGUF q4_0, decode")
    )
    done = race.run(__doc__ or "", contestants, rounds=args.rounds)
    return race.keep("moe_decode", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
