"""What the routers of a TFLite file choose, on LiteRT: their results are made outputs of a copy of the file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export import experts, flatbuffer
from edge.export.checkpoint import Checkpoint
from edge.runtimes.cores import physical_cores
from edge.runtimes.litert import CompiledRunner

if TYPE_CHECKING:
    import numpy as np

METHOD = "router logits of the shipped graph, made outputs of a copy of its file that LiteRT runs"
HIDDEN = -1e9  # what a masked position is given


def choices(path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Iterator[dict[int, np.ndarray]]:
    """The experts of each token of each window, by layer: `(tokens, used)`."""
    import numpy as np

    from edge.readers import tflite as reader

    layers = [layer.index for layer in experts.layers(checkpoint)]
    n, used = experts.count(checkpoint.config), experts.used(checkpoint.config)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        copy = Path(work, "routers.tflite")
        names = _expose(path, copy, checkpoint)
        signatures = reader.read(copy).signatures
        runner = CompiledRunner(copy, signatures, threads=physical_cores(), packed=":memory")
        try:
            mask = np.empty(signatures["decode"].inputs["mask"].shape, np.float32)
            for window in windows:
                mask[:] = HIDDEN
                rows: list[list[Any]] = [[] for _ in layers]
                for position, token in enumerate(window):
                    mask[..., position] = 0
                    runner.run("decode", np.array([[token]], np.int32), np.array([position], np.int32), mask)
                    for row, name in zip(rows, names, strict=True):
                        row.append(np.argsort(-runner.read("decode", name, n), kind="stable")[:used])
                yield {layer: np.stack(row) for layer, row in zip(layers, rows, strict=True)}
        finally:
            runner.close()


def _expose(path: Path, copy: Path, checkpoint: Checkpoint) -> list[str]:
    """Write a copy of the file whose `decode` gives every router's logits too; the names of those outputs."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    signature = next(s for s in model.signatureDefs if s.signatureKey == b"decode")
    graph = model.subgraphs[signature.subgraphIndex]
    # The prefills are emptied: all weights would be packed again for each of them.
    for other in model.signatureDefs:
        if other is not signature:
            emptied = model.subgraphs[other.subgraphIndex]
            emptied.operators, emptied.tensors = [], []
            emptied.inputs, emptied.outputs = [], []
    model.signatureDefs = [signature]
    weights = {re.sub(r"#\d+$", "", t.name.decode()): i for i, t in enumerate(graph.tensors)}
    made_from: dict[int, int] = {}
    for operator in graph.operators:
        for i in operator.inputs:
            made_from.setdefault(int(i), int(operator.outputs[0]))
    names = []
    for layer in experts.layers(checkpoint):
        at = weights.get(layer.router)
        if at is None or at not in made_from:
            raise EdgeError(f"the TFLite file has no router of layer {layer.index}: {layer.router}")
        end = schema.TensorMapT()
        end.name, end.tensorIndex = f"router_{layer.index}", made_from[at]
        signature.outputs.append(end)
        graph.outputs = [*graph.outputs, made_from[at]]
        names.append(end.name)
    flatbuffer.write(model, copy)
    return names
