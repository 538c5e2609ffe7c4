"""Experts in ONNX: onnxruntime's MoE and QMoE, which compute only the experts that the router chose.

mobius writes a loop over all experts that computes each for every token and multiplies most results by
zero. Here each layer's loop becomes one node:

    MoE  (x, router logits, fc1, "", fc2)                       float32
    QMoE (x, router logits, fc1, scales, "", fc2, scales, ...)  blocks of 4 or 8 bits

fc1 is `(experts, 2 inner, hidden)` with rows of gate and up in turn (`swiglu_fusion=1`: the only layout that
the CPU kernels implement), fc2 `(experts, hidden, inner)`. Both ops take the softmax themselves. QMoE
ignores `normalize_routing_weights=0` unless it is given the weights as an input of their own
(onnxruntime 1.32: it normalizes silently), so models whose weights do not add up to one give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export import blocks, experts
from edge.export.artifact import Entry
from edge.export.blocks import Blocks
from edge.export.checkpoint import Checkpoint
from edge.export.experts import Layer
from edge.export.onnx_graph import Graph

if TYPE_CHECKING:
    import numpy as np

_MICROSOFT = "com.microsoft"
_OPS = ("MoE", "QMoE")
_INT8_COMPUTE = 4
_QMOE_INPUTS = 15
PARTS = (".blocks", ".scales", ".zero_points")
_FC1, _FC2 = "{front}.gate_up", "{front}.down"


def fuse(graph: Graph, checkpoint: Checkpoint, scratch: Path) -> tuple[Entry, ...]:
    """Put one `MoE` in the place of each layer's loop over its experts; where the experts' tensors went.

    The stacks are mapped files in the folder `scratch`, which must stay until the graph is saved. Every
    value is compared with the checkpoint's. Raises `EdgeError` when the loop is not where it should be.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    for layer in experts.layers(checkpoint):
        router, end = _loop(graph, checkpoint, layer)
        front = f"model.layers.{layer.index}.mlp.experts"
        fc1, fc2 = _stacks(graph, checkpoint, layer, scratch)
        names = _FC1.format(front=front), _FC2.format(front=front)
        graph.weights[names[0]], graph.weights[names[1]] = fc1, fc2
        _replace_loop(graph, checkpoint, router, end, front, names)
        both, down = layer.stacked or ("", "")
        first = (both,) if both else tuple(n for gate, up, _ in layer.experts for n in (gate, up))
        second = (down,) if down else tuple(n for _, _, n in layer.experts)
        entries.append(
            Entry(first, (names[0],), "float32", fc1.size, fc1.nbytes, "pack", "rows of gate and up in turn")
        )
        entries.append(Entry(second, (names[1],), "float32", fc2.size, fc2.nbytes, "pack"))
    if entries:
        graph.drop_dead()
    return tuple(entries)


def _loop(graph: Graph, checkpoint: Checkpoint, layer: Layer) -> tuple[Any, Any]:
    """The router's product, and the node that adds the last expert's result to the others'."""
    readers: dict[str, list[Any]] = {}
    for node in graph.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def reads(name: str, *kinds: str) -> Any:
        found = [n for n in readers.get(name, ()) if n.op_type in kinds]
        if len(found) != 1:
            raise EdgeError(
                f"the ONNX graph of {checkpoint.name} does not compute the experts of layer {layer.index} as expected: "
                f"{len(found)} nodes take {name!r}, wanted 1",
                hint="choose another format",
            )
        return found[0]

    front = f"model.layers.{layer.index}.mlp"
    router = reads(f"{front}.gate.weight_t", "MatMul")
    end = None
    for e in range(experts.count(checkpoint.config)):
        down = reads(f"{front}.experts.{e}.down_proj.weight_t", "MatMul")
        weighted = reads(down.output[0], "Mul")
        end = weighted if end is None else reads(weighted.output[0], "Add")
    return router, end


def _stacks(graph: Graph, checkpoint: Checkpoint, layer: Layer, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    fc1 = fc2 = None
    n = experts.count(checkpoint.config)
    for e in range(n):
        own = f"model.layers.{layer.index}.mlp.experts.{e}"
        gate, up, down = wanted = experts.read(checkpoint, layer, e)
        for part, values in zip(("gate", "up", "down"), wanted, strict=True):
            stored = graph.weights.pop(f"{own}.{part}_proj.weight_t", None)
            if stored is None or not np.array_equal(stored.T, values):
                raise EdgeError(
                    f"the {part} matrix of expert {e} in layer {layer.index} changed on the way to ONNX",
                    hint="this architecture is not converted faithfully; nothing was written",
                )
        if fc1 is None or fc2 is None:
            inner, hidden = gate.shape
            fc1 = np.memmap(scratch / f"{layer.index}.fc1", np.float32, "w+", shape=(n, 2 * inner, hidden))
            fc2 = np.memmap(scratch / f"{layer.index}.fc2", np.float32, "w+", shape=(n, hidden, inner))
        fc1[e, 0::2], fc1[e, 1::2], fc2[e] = gate, up, down
    assert fc1 is not None
    assert fc2 is not None
    return fc1, fc2


def _replace_loop(
    graph: Graph, checkpoint: Checkpoint, router: Any, end: Any, front: str, names: tuple[str, str]
) -> None:
    import numpy as np
    import onnx

    shape = f"{front}.router_shape"
    graph.weights[shape] = np.array([-1, experts.count(checkpoint.config)], np.int64)
    flat = onnx.helper.make_node("Reshape", [router.output[0], shape], [f"{front}.router"], name=f"{front}.router")
    made = onnx.helper.make_node(
        "MoE",
        [router.input[0], flat.output[0], names[0], "", names[1]],
        list(end.output),
        name=front,
        domain=_MICROSOFT,
        k=experts.used(checkpoint.config),
        normalize_routing_weights=int(experts.normalized(checkpoint.config)),
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
    )
    graph.replace([end], [flat, made])


def nodes(graph: Graph) -> list[Any]:
    """Every MoE or QMoE node, in the order of the layers."""
    return [n for n in graph.nodes if is_experts(n)]


def is_experts(node: Any) -> bool:
    """Whether a node computes experts; its second input are the router's logits `(tokens, experts)`."""
    return node.op_type in _OPS and node.domain == _MICROSOFT


def float_stacks(graph: Graph) -> set[str]:
    """Names of the stacks that are not quantized."""
    return {name for n in nodes(graph) if n.op_type == "MoE" for name in (n.input[2], n.input[4])}


def quantize(
    graph: Graph, node: Any, *, bits: int, block_size: int, method: str, hessians: list[tuple[Any, Any]]
) -> None:
    """Put a `QMoE` in the place of a `MoE`.

    `hessians` has a pair for each expert: of what gate and up are fed, and of what down is fed; `None`
    rounds to nearest. Where a size is no multiple of the block, zeros are added: they change nothing.
    """
    import numpy as np
    import onnx

    fc1, fc2 = (np.asarray(graph.weights.pop(node.input[i])) for i in (2, 4))
    hidden, inner = fc1.shape[2], fc2.shape[2]
    wider, longer = -hidden % block_size, -inner % block_size
    stacks = (
        (node.input[2], np.pad(fc1, ((0, 0), (0, 2 * longer), (0, wider))), wider),
        (node.input[4], np.pad(fc2, ((0, 0), (0, wider), (0, longer))), longer),
    )
    inputs = [*node.input[:2], *[""] * (_QMOE_INPUTS - 2)]
    for part, (name, stack, pad) in enumerate(stacks):
        made = []
        for matrix, pair in zip(stack, hessians, strict=True):
            hessian = None if pair[part] is None else np.pad(pair[part], ((0, pad), (0, pad)))
            made.append(blocks.quantize(matrix, bits, block_size, method, hessian))
        graph.weights[f"{name}.blocks"] = np.stack([b.data.reshape(len(b.data), -1) for b in made])
        graph.weights[f"{name}.scales"] = np.stack([b.scales for b in made])
        graph.weights[f"{name}.zero_points"] = np.stack([b.zero_points for b in made])
        inputs[2 + 3 * part], inputs[3 + 3 * part] = f"{name}.blocks", f"{name}.scales"
        inputs[11 + part] = f"{name}.zero_points"
    attributes = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
    before, after, result = [], [], node.output[0]
    if not attributes["normalize_routing_weights"]:
        inputs[14] = f"{node.name}.weights"
        before.append(onnx.helper.make_node("Softmax", [node.input[1]], [inputs[14]], axis=-1, name=inputs[14]))
    if wider:
        inputs[0], result = f"{node.name}.wide", f"{node.name}.wide_result"
        before.append(_widen(graph, node, inputs[0], wider))
        after.append(_cut(graph, node, result, hidden))
    while not inputs[-1]:
        inputs.pop()
    made_node = onnx.helper.make_node(
        "QMoE",
        inputs,
        [result],
        name=node.name,
        domain=_MICROSOFT,
        expert_weight_bits=bits,
        block_size=block_size,
        accuracy_level=_INT8_COMPUTE,
        weights_prepacked=0,
        **attributes,
    )
    graph.replace([node], [*before, made_node, *after])


def _widen(graph: Graph, node: Any, result: str, by: int) -> Any:
    import numpy as np
    import onnx

    graph.weights[f"{node.name}.pads"] = np.array([0, by], np.int64)
    graph.weights[f"{node.name}.axis"] = np.array([-1], np.int64)
    inputs = [node.input[0], f"{node.name}.pads", "", f"{node.name}.axis"]
    return onnx.helper.make_node("Pad", inputs, [result], name=result)


def _cut(graph: Graph, node: Any, wide: str, hidden: int) -> Any:
    import numpy as np
    import onnx

    graph.weights[f"{node.name}.from"] = np.array([0], np.int64)
    graph.weights[f"{node.name}.to"] = np.array([hidden], np.int64)
    inputs = [wide, f"{node.name}.from", f"{node.name}.to", f"{node.name}.axis"]
    return onnx.helper.make_node("Slice", inputs, list(node.output), name=f"{node.name}.cut")


class Waiting:
    """Layers whose Hessians are not all there yet; each is quantized when its last one comes, and forgotten."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint, *, bits: int, block_size: int, method: str) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in nodes(graph) if node.op_type == "MoE"}
        self._plan: dict[str, Any] = {"bits": bits, "block_size": block_size, "method": method}
        self._n = experts.count(checkpoint.config) if self._nodes else 0
        self._where = {
            key: (layer.index, e, part)
            for layer in experts.layers(checkpoint)
            for e in range(self._n)
            for part, key in enumerate(layer.keys(e))
        }
        self._found: dict[int, dict[tuple[int, int], Any]] = {}
        self.done = 0

    def take(self, name: str, hessian: Any) -> bool:
        """Keep what belongs to an expert; `False` for everything else."""
        if name not in self._where:
            return False
        layer, e, part = self._where[name]
        found = self._found.setdefault(layer, {})
        found[e, part] = hessian
        if len(found) == 3 * self._n:
            self._one(layer, [(found[i, 0], found[i, 2]) for i in range(self._n)])
            del self._found[layer]
        return True

    def rest(self) -> None:
        """Round to nearest whatever got no Hessians."""
        for name in list(self._nodes):
            self._one(int(name.split(".")[2]), [(None, None)] * self._n)

    def _one(self, layer: int, hessians: list[tuple[Any, Any]]) -> None:
        node = self._nodes.pop(f"model.layers.{layer}.mlp.experts")
        quantize(self._graph, node, hessians=hessians, **self._plan)
        self.done += 1


def stored(
    graph: Graph, layer: int, e: int, sizes: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Gate, up and down of one expert as the runtime computes with them; `sizes` are inner and hidden."""
    import numpy as np

    front = f"model.layers.{layer}.mlp.experts"
    node = next((n for n in nodes(graph) if n.name == front), None)
    if node is None:
        return None
    inner, hidden = sizes
    found = []
    for name in (_FC1.format(front=front), _FC2.format(front=front)):
        if name in graph.weights:
            found.append(np.asarray(graph.weights[name][e], np.float32))
            continue
        attributes = {a.name: a.i for a in node.attribute}
        bits, size = attributes["expert_weight_bits"], attributes["block_size"]
        data, scales, zeros = (np.asarray(graph.weights[name + p][e]) for p in PARTS)
        whole = Blocks(data.reshape(*scales.shape, -1), scales, zeros, bits, size)
        found.append(whole.dequantize(scales.shape[1] * size))
    fc1, fc2 = found
    return fc1[0 : 2 * inner : 2, :hidden], fc1[1 : 2 * inner : 2, :hidden], fc2[:hidden, :inner]


def weight_errors(graph: Graph, checkpoint: Checkpoint) -> Iterator[tuple[str, float]]:
    """The relative error of what is stored, for each matrix of each expert."""
    import numpy as np

    for layer in experts.layers(checkpoint):
        for e in range(experts.count(checkpoint.config)):
            wanted = experts.read(checkpoint, layer, e)
            found = stored(graph, layer.index, e, wanted[0].shape)
            for name, a, b in zip(layer.keys(e), wanted, found or (), strict=False):
                yield name, float(np.linalg.norm(b - a)) / (float(np.linalg.norm(a)) or 1.0)
