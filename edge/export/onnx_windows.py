"""Sliding attention windows: mobius leaves them out, so a long prompt would see too much of its past."""

from __future__ import annotations

from typing import Any

from edge.errors import EdgeError
from edge.export.attention import windows
from edge.export.checkpoint import Checkpoint
from edge.export.onnx_graph import Graph


def restore(graph: Graph, checkpoint: Checkpoint, context_length: int) -> None:
    """Give each layer's attention the window that the checkpoint's configuration says it has.

    A layer of window w attends to the last w positions, its own included. Windows that hold
    the whole context are not written. Raises `EdgeError` when layers and attention nodes differ in number.
    """
    import onnx

    found = windows(checkpoint)
    nodes = [n for n in graph.nodes if n.op_type == "GroupQueryAttention"]
    if not any(w is not None and w < context_length for w in found):
        return
    if len(nodes) != len(found):
        raise EdgeError(
            f"{checkpoint.name} has {len(found)} layers, its ONNX graph {len(nodes)} attention nodes",
            hint="choose another format",
        )
    for node, window in zip(nodes, found, strict=True):
        if window is not None and window < context_length and not any(_is_window(a) for a in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("local_window_size", window))


def _is_window(attribute: Any) -> bool:
    return attribute.name == "local_window_size" and attribute.i > 0
