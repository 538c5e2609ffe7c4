"""ONNX: bits and block size of each product; experts are one operator a layer, and are kept alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.export import blocks, experts, onnx_graph, onnx_plans, onnx_source
from edge.export.artifact import Artifact
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.formats import onnx
from edge.export.planner import damage
from edge.export.planner.front import Option, Part
from edge.export.planner.sensitivity import Sensitivity
from edge.export.planner.variety import Variety
from edge.progress import Progress
from edge.runtimes.traffic import chosen_share

if TYPE_CHECKING:
    import numpy as np

_TYPES = ("8/32", "8/64", "8/128", "4/16", "4/32", "4/64", "4/128")  # bits, and inputs that share a scale
_NAMED = ("int8", "int4-mixed", "int4")
# What is left of the divergence of rounding to nearest when errors are carried over to other columns: SmolLM2-135M at
# blocks of 32 has 0.18 nats so, and 0.47 rounded to nearest.
CARRIED = 0.4


def variety(
    full: Artifact,
    checkpoint: Checkpoint,
    sensitivity: Sensitivity,
    *,
    calibration: Calibration | None,
    progress: Progress,
) -> Variety:
    """Every product with a constant matrix, with four or eight bits in blocks of several sizes."""
    graph = onnx_source.attach(onnx_graph.load(full.path), checkpoint, full.ledger)
    source_of = {target: e.source for e in full.ledger for target in e.target}
    embedding = onnx.embedding(graph, full.ledger)
    left = CARRIED if calibration is not None else 1.0
    matrices: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
    for weight, (_, turned) in onnx.constant_products(graph, full.ledger, checkpoint).items():
        if sources := source_of.get(weight):
            shape = graph.weights[weight].shape
            matrices[sources[0]] = (sources, shape if turned else shape[::-1])
    tied = embedding in matrices
    if not tied:
        matrices[embedding] = ((embedding,), checkpoint.tensors[embedding].shape)
    progress.start("measuring what rounding costs in ONNX", len(matrices))
    parts: list[Part] = []
    full_bytes = 0
    for name, (sources, shape) in matrices.items():
        if not all(damage.known(checkpoint, sensitivity, s) for s in sources):
            continue
        costs = _costs(checkpoint, sensitivity, sources, left, rounded_only=name == embedding)
        # The token embedding of a model that sees has a file of its own, beside the head that it is.
        copies = 2 if checkpoint.sees and tied and name == embedding else 1
        options = tuple(Option(kind, copies * _bytes(shape, kind), costs[kind]) for kind in _TYPES)
        read = 0.0 if name == embedding and not tied else 1 / copies
        parts.append(Part(name, copies * shape[0] * shape[1], options, read))
        full_bytes += 4 * shape[0] * shape[1]
        progress.advance(len(parts))
    if experts.layers(checkpoint):
        parts.append(_experts(checkpoint, sensitivity, left))
        full_bytes += 4 * parts[-1].n_elements
    files = sum((full.folder / name).stat().st_size for name in full.files if not name.endswith(".json"))
    stored = sum(e.n_bytes for e in full.ledger)
    # Weights of a large checkpoint are not in its full file.
    rest = max(0, files - full_bytes if files >= stored else files)
    return Variety(
        tuple(parts), _named(parts, embedding), {kind: int(kind.split("/")[0]) for kind in _TYPES}, rest,
    )  # fmt: skip


def _costs(
    checkpoint: Checkpoint, sensitivity: Sensitivity, sources: Sequence[str], left: float, *, rounded_only: bool = False
) -> dict[str, float]:
    """Of each type; four bits are calibrated, but not those of the embedding."""

    def rounded(_: str, rows: np.ndarray, kind: str) -> np.ndarray:
        bits, block = map(int, kind.split("/"))
        return blocks.quantize(rows, bits, block, "rtn").dequantize(rows.shape[1])

    costs = damage.of(checkpoint, sensitivity, sources, _TYPES, rounded)
    return {kind: cost * (left if kind.startswith("4") and not rounded_only else 1.0) for kind, cost in costs.items()}


def _experts(checkpoint: Checkpoint, sensitivity: Sensitivity, left: float) -> Part:
    """All experts as one part."""
    sources: list[str] = []
    sizes = dict.fromkeys(_TYPES, 0)
    n = 0
    for layer in experts.layers(checkpoint):
        sources += [name for name in layer.names if name != layer.router]
        gate, up, down = experts.read(checkpoint, layer, 0)
        for matrix in (gate, up, down):
            n += experts.count(checkpoint.config) * matrix.size
            for kind in _TYPES:
                sizes[kind] += experts.count(checkpoint.config) * _bytes(matrix.shape, kind)
    costs = _costs(checkpoint, sensitivity, sources, left)
    options = tuple(Option(kind, sizes[kind], costs[kind]) for kind in _TYPES if kind != "4/16")
    return Part(onnx_plans.EXPERTS, n, options, read=chosen_share(checkpoint.config))


def _bytes(shape: Sequence[int], kind: str) -> int:
    """Blocks, a float32 scale for each, and zero points."""
    bits, block = map(int, kind.split("/"))
    n_blocks = -(-shape[1] // block)
    return shape[0] * (n_blocks * block * bits // 8 + 4 * n_blocks + -(-n_blocks * bits // 8))


def _named(parts: Sequence[Part], embedding: str) -> dict[str, tuple[str, ...]]:
    """The types of each part in the format's own plans."""
    named = {}
    for name in _NAMED:
        plan = onnx_plans.PLANS[name]
        kinds = []
        for part in parts:
            head = part.name in {embedding, "lm_head.weight"}
            bits, block = (plan.bits, plan.block) if part.name == onnx_plans.EXPERTS else plan.at(part.name, head)
            kinds.append(f"{bits}/{block}")
        named[name] = tuple(kinds)
    return named
