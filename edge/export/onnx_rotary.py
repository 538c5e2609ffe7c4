"""Rotary tables: mobius gives every layer of Gemma 3 those of the layers with a window; here each gets its own."""

from __future__ import annotations

from edge.errors import EdgeError
from edge.export.attention import rotary_tables
from edge.export.checkpoint import Checkpoint
from edge.export.onnx_graph import Graph

_TOLERANCE = 1e-4  # float32 rounds the angle of a far position by that much


def restore(graph: Graph, checkpoint: Checkpoint, context_length: int) -> None:
    """Compare the cosines and sines that each layer's attention reads with the source's, and put those in their place.

    1. Tables that agree to rounding are left as they are, cut to the positions of this context.
    2. Others are replaced by the source's own; layers of one kind share them.

    Raises `EdgeError` when layers and attention nodes differ in number, or tables in width.
    """
    import numpy as np

    nodes = [n for n in graph.nodes if n.op_type == "GroupQueryAttention"]
    if not any(len(n.input) > 8 and n.input[7] for n in nodes):
        return
    wanted = rotary_tables(checkpoint, context_length)
    if len(wanted) != len(nodes):
        raise EdgeError(
            f"{checkpoint.name} has {len(wanted)} layers, its ONNX graph {len(nodes)} attention nodes",
            hint="choose another format",
        )
    for i, (node, tables) in enumerate(zip(nodes, wanted, strict=True)):
        if len(node.input) <= 8 or not node.input[7]:
            continue
        # What is computed in the graph, and not read from it, is replaced too.
        found = [graph.weights[name] for name in node.input[7:9] if name in graph.weights]
        if any(f.shape[1] != t.shape[1] for f, t in zip(found, tables, strict=False)):
            raise EdgeError(
                f"layer {i} of {checkpoint.name} turns {2 * tables[0].shape[1]} values of each head, "
                f"in its ONNX graph {2 * found[0].shape[1]}",
                hint="choose another format",
            )
        close = [
            len(f) >= context_length and np.allclose(f[:context_length], t, rtol=0, atol=_TOLERANCE)
            for f, t in zip(found, tables, strict=False)
        ]
        if len(close) == 2 and all(close):
            for name, table in zip(node.input[7:9], found, strict=True):
                graph.weights[name] = table[:context_length]
            continue
        owner = next(k for k, t in enumerate(wanted) if t is tables)
        for at, kind, table in zip((7, 8), ("cos", "sin"), tables, strict=True):
            node.input[at] = f"rotary_of_layer_{owner}.{kind}"
            graph.weights[node.input[at]] = np.ascontiguousarray(table)
