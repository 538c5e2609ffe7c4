"""Rewriting nodes: products with a constant matrix and the embedding, in blocks or half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export import blocks, onnx_experts
from edge.export.blocks import Blocks
from edge.export.onnx_graph import Graph, constant_matmuls

if TYPE_CHECKING:
    import numpy as np

    from edge.export.pieces import Pieces

_MICROSOFT = "com.microsoft"
_READERS = {"MatMulNBits": 1, "GatherBlockQuantized": 0}  # which input holds the blocks
_INT8_COMPUTE = 4  # MatMulNBits' accuracy_level: activations in 8 bits, block by block


def quantize_product(
    graph: Graph,
    node: Any,
    weight: str,
    turned: bool,
    *,
    bits: int,
    block_size: int,
    method: str,
    hessian: np.ndarray | None,
    pieces: Pieces | None = None,
) -> None:
    """Put a `MatMulNBits` in the place of `node` (and of the Transpose before it, when `turned`).

    With `pieces`, its blocks are kept there, and taken from there.
    """
    import numpy as np
    import onnx

    def make() -> Blocks:
        matrix = np.asarray(graph.weights[weight], np.float32)
        return blocks.quantize(matrix if turned else np.ascontiguousarray(matrix.T), bits, block_size, method, hessian)

    shape = graph.weights[weight].shape
    n_out, n_in = shape if turned else shape[::-1]
    _store(graph, weight, make, pieces)
    made = onnx.helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{weight}.blocks", f"{weight}.scales", f"{weight}.zero_points"],
        list(node.output),
        name=node.name,
        domain=_MICROSOFT,
        K=n_in,
        N=n_out,
        bits=bits,
        block_size=block_size,
        accuracy_level=_INT8_COMPUTE,
    )
    gone = [node]
    if turned:
        gone.append(graph.producers()[node.input[1]])
    graph.replace(gone, [made])


def quantize_embedding(graph: Graph, *, bits: int, block_size: int, pieces: Pieces | None = None) -> None:
    """Let the token embedding read blocks too: those of the head when they share a matrix."""
    import numpy as np
    import onnx

    node, weight = embedding(graph)
    matrix = graph.weights[weight]
    if f"{weight}.blocks" not in graph.weights:
        _store(graph, weight, functools.partial(_rounded, matrix, bits, block_size), pieces)
    n_rows, n_blocks = graph.weights[f"{weight}.scales"].shape
    # The head reads (rows, blocks, bytes); the embedding wants (rows, bytes). A Reshape of a
    # constant is folded when the model is loaded, without copying the blocks in the file.
    shape = f"{weight}.rows"
    graph.weights[shape] = np.array([n_rows, -1], np.int64)
    flat = onnx.helper.make_node("Reshape", [f"{weight}.blocks", shape], [f"{weight}.flat"], name=f"{weight}.flat")
    width = matrix.shape[1]
    # Rows that do not fill their last block come back with its padding.
    padded = n_blocks * block_size != width
    result = node.output[0]
    made = onnx.helper.make_node(
        "GatherBlockQuantized",
        [f"{weight}.flat", node.input[1], f"{weight}.scales", f"{weight}.zero_points"],
        [f"{result}.padded" if padded else result],
        name=node.name,
        domain=_MICROSOFT,
        bits=bits,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.replace([node], [flat, made, *(_cut(graph, f"{result}.padded", result, width) if padded else ())])


def embedding(graph: Graph) -> tuple[Any, str]:
    """The node that looks tokens up, and its weight. Raises `EdgeError` for a graph without one."""
    for node in graph.nodes:
        if node.op_type == "Gather" and node.input[0] in graph.weights and node.input[1] == "input_ids":
            return node, node.input[0]
    raise EdgeError("this graph has no token embedding that is looked up by input_ids")


def _rounded(matrix: Any, bits: int, block_size: int) -> Blocks:
    import numpy as np

    return blocks.quantize(np.asarray(matrix), bits, block_size, "rtn")


def _cut(graph: Graph, wide: str, narrow: str, width: int) -> list[Any]:
    """The first `width` of the last axis."""
    import numpy as np
    import onnx

    limits = {"begin": 0, "end": width, "axis": -1}
    for name, value in limits.items():
        graph.weights[f"{narrow}.{name}"] = np.array([value], np.int64)
    inputs = [wide, *(f"{narrow}.{name}" for name in limits)]
    return [onnx.helper.make_node("Slice", inputs, [narrow], name=f"{narrow}.cut")]


def halve(graph: Graph) -> None:
    """Store matrices in float16; a Cast in front of each use, so that any runtime can compute with them."""
    import numpy as np
    import onnx

    float32 = onnx.TensorProto.FLOAT
    products = {w for _, w, _ in constant_matmuls(graph)} | onnx_experts.float_stacks(graph)
    matrices = products | {n.input[0] for n in graph.nodes if n.op_type == "Gather" and n.input[1] == "input_ids"}
    out: list[Any] = []
    cast: set[str] = set()
    for node in graph.nodes:
        for i, name in enumerate(node.input):
            if name not in matrices:
                continue
            if node.op_type == "Gather":  # only the rows that were looked up
                result = node.output[0]
                node.output[0] = f"{result}.half"
                out += [node, onnx.helper.make_node("Cast", [node.output[0]], [result], to=float32)]
                break
            if name not in cast:
                out.append(onnx.helper.make_node("Cast", [name], [f"{name}.float32"], to=float32))
                cast.add(name)
            node.input[i] = f"{name}.float32"
        else:
            out.append(node)
    for name in matrices:
        graph.weights[name] = graph.weights[name].astype(np.float16)
    del graph.nodes[:]
    graph.nodes.extend(out)


def stored_matrix(graph: Graph, target: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """What a weight of the graph stands for, as float32 `(outputs, inputs)`; `None` when it is no matrix."""
    import numpy as np

    base = target.removesuffix(".blocks")
    if f"{base}.blocks" in graph.weights:
        parts = [np.asarray(graph.weights[base + p]) for p in (".blocks", ".scales", ".zero_points")]
        readers = (n for n in graph.nodes if n.op_type in _READERS and n.input[_READERS[n.op_type]].startswith(base))
        attributes = {a.name: a.i for a in next(readers).attribute}
        stored = Blocks(parts[0], parts[1], parts[2], attributes["bits"], attributes["block_size"])
        return stored.dequantize(shape[1])
    array = graph.weights.get(target)
    if array is None or array.ndim != 2:
        return None
    values = np.asarray(array, np.float32)
    return values.T if target.endswith("_t") or values.shape != shape else values


def _store(graph: Graph, weight: str, make: Callable[[], Blocks], pieces: Pieces | None) -> None:
    def parts() -> dict[str, np.ndarray]:
        made = make()
        return {"blocks": made.data, "scales": made.scales, "zero_points": made.zero_points}

    for part, array in (pieces.get(weight, parts) if pieces else parts()).items():
        graph.weights[f"{weight}.{part}"] = array
