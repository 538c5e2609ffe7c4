"""What the routers of a TFLite file choose, on LiteRT: their results are made outputs of a copy of the file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export import experts
from edge.export.checkpoint import Checkpoint
from edge.runtimes.litert import CACHE_PREFIX, interpreter_class

if TYPE_CHECKING:
    import numpy as np

METHOD = "router logits of the shipped graph, made outputs of a copy of its file that LiteRT's interpreter runs"
_HIDDEN = -1e9


def choices(path: Path, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]) -> Iterator[dict[int, np.ndarray]]:
    """The experts of each token of each window, by layer: `(tokens, used)`."""
    import numpy as np

    layers = [layer.index for layer in experts.layers(checkpoint)]
    used = experts.used(checkpoint.config)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        copy = Path(work, "routers.tflite")
        names = _expose(path, copy, checkpoint)
        runner = interpreter_class()(model_path=str(copy), num_threads=2).get_signature_runner("decode")
        shapes = {name: tuple(info["shape"]) for name, info in runner.get_input_details().items()}
        for window in windows:
            cache = {n: np.zeros(s, np.float32) for n, s in shapes.items() if n.startswith(CACHE_PREFIX)}
            mask = np.full(shapes["mask"], _HIDDEN, np.float32)
            rows: list[list[Any]] = [[] for _ in layers]
            for position, token in enumerate(window):
                mask[..., position] = 0
                at = np.array([position], np.int32)
                found = runner(tokens=np.array([[token]], np.int32), input_pos=at, mask=mask, **cache)
                cache = {name: found[name] for name in cache}
                for row, name in zip(rows, names, strict=True):
                    row.append(np.argsort(-found[name].reshape(-1), kind="stable")[:used])
            yield {layer: np.stack(row) for layer, row in zip(layers, rows, strict=True)}


def _expose(path: Path, copy: Path, checkpoint: Checkpoint) -> list[str]:
    """Write a copy of the file whose `decode` gives every router's logits too; the names of those outputs."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    signature = next(s for s in model.signatureDefs if s.signatureKey == b"decode")
    graph = model.subgraphs[signature.subgraphIndex]
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
    flatbuffer_utils.write_model(model, str(copy))
    return names
