"""An ONNX graph with its weights left on disk until they are needed, and written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.bundle import safe_path
from edge.errors import EdgeError, InputError
from edge.runtimes.engines.onnx import LOGITS_FROM

if TYPE_CHECKING:
    import numpy as np

_PAGE_BYTES = 4096  # large weights start at a page: runtimes map the data file and use it in place
_ALIGNMENT = 64
_INLINE_BYTES = 1024


@dataclass
class Graph:
    """A model without its large weights, where those lie, and those that were changed.

    `weights` maps an initializer's name to its array; arrays from the file are memory-mapped.
    """

    model: Any
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def nodes(self) -> Any:
        return self.model.graph.node

    def producers(self) -> dict[str, Any]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.output}

    def replace(self, old: Iterable[Any], new: Iterable[Any]) -> None:
        """Put `new` nodes where the first of `old` stood."""
        gone = {n.output[0] for n in old}
        out: list[Any] = []
        placed = False
        for node in list(self.nodes):
            if node.output[0] not in gone:
                out.append(node)
            elif not placed:
                out += new
                placed = True
        del self.nodes[:]
        self.nodes.extend(out)

    def drop_dead(self) -> None:
        """Remove nodes whose results nobody reads."""
        wanted = {o.name for o in self.model.graph.output}
        alive = []
        for node in reversed(list(self.nodes)):
            if wanted & set(node.output):
                alive.append(node)
                wanted |= set(node.input)
        del self.nodes[:]
        self.nodes.extend(reversed(alive))

    def drop_unused(self) -> None:
        """Forget weights that no node reads any more; the others stand as they are read, whoever made them first."""
        used = dict.fromkeys(name for node in self.nodes for name in node.input)
        self.weights = {name: self.weights[name] for name in used if name in self.weights}


def load(path: Path) -> Graph:
    """Read a model of our own making; its external data is mapped, not read."""
    import numpy as np
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    graph = Graph(model)
    for tensor in model.graph.initializer:
        external = {e.key: e.value for e in tensor.external_data}
        if not external:
            graph.weights[tensor.name] = onnx.numpy_helper.to_array(tensor)
            continue
        data = path.parent / safe_path(external["location"])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        offset, length = int(external.get("offset", 0)), int(external["length"])
        if offset + length > data.stat().st_size:
            raise InputError(f"{path} points past the end of {data.name}")
        graph.weights[tensor.name] = np.memmap(data, dtype, "r", offset, tuple(tensor.dims))
    del model.graph.initializer[:]
    return graph


def save(graph: Graph, path: Path, *, without: Callable[[Any], bool] = lambda weight: False) -> tuple[Path, ...]:
    """Write the model and, beside it, `<name>_data` with its weights; one weight in memory at a time.

    Weights that `without` picks are left out, for who can give them again.

    The name of the data file is what transformers.js looks for.
    """
    import numpy as np
    import onnx

    graph.drop_unused()
    for node in graph.nodes:  # what the builder noted for itself
        node.ClearField("doc_string")
        del node.metadata_props[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    data_path = path.with_name(path.name + "_data")
    del graph.model.graph.initializer[:]
    with data_path.open("wb") as data:
        for name, array in graph.weights.items():
            if without(array):
                continue
            if array.nbytes <= _INLINE_BYTES:
                graph.model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
                continue
            alignment = _PAGE_BYTES if array.nbytes >= 64 * _PAGE_BYTES else _ALIGNMENT
            data.write(b"\0" * (-data.tell() % alignment))
            tensor = onnx.TensorProto(
                name=name,
                dims=array.shape,
                data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (("location", data_path.name), ("offset", data.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            np.ascontiguousarray(array).tofile(data)
            graph.model.graph.initializer.append(tensor)
    path.write_bytes(graph.model.SerializeToString())
    return path, data_path


def constant_matmuls(graph: Graph) -> Iterator[tuple[Any, str, bool]]:
    """Every product with a constant matrix: node, weight name, and whether a Transpose stands between.

    A transposed weight is stored `(outputs, inputs)`, a plain one `(inputs, outputs)`.
    """
    producers = graph.producers()
    for node in list(graph.nodes):
        if node.op_type != "MatMul":
            continue
        name = node.input[1]
        if name in graph.weights and graph.weights[name].ndim == 2:
            yield node, name, False
        elif (made_by := producers.get(name)) is not None and made_by.op_type == "Transpose":
            source = made_by.input[0]
            if source in graph.weights and graph.weights[source].ndim == 2:
                yield node, source, True


def tie_head(graph: Graph) -> None:
    """Let the head read the token embedding where mobius stored a turned copy of it, as it does for mixtures."""
    import numpy as np
    import onnx

    head, embedding = graph.weights.get("lm_head.weight_t"), graph.weights.get("model.embed_tokens.weight")
    if head is None or embedding is None or not np.array_equal(head.T, embedding):
        return
    node = next(n for n in graph.nodes if "lm_head.weight_t" in n.input)
    turned = onnx.helper.make_node("Transpose", ["model.embed_tokens.weight"], ["lm_head.turned"], perm=[1, 0])
    product = onnx.helper.make_node("MatMul", [node.input[0], "lm_head.turned"], list(node.output), name=node.name)
    graph.replace([node], [turned, product])
    del graph.weights["lm_head.weight_t"]


def choose_rows(graph: Graph) -> None:
    """Let whoever runs the graph have logits from one position on, by the optional input `logits_from`.

    It has a value, so programs that do not know it need not give it and get all rows: of a prompt of 128 tokens the
    head of SmolLM2 is a fifth of the work, and one row is wanted. Negative positions count from the end. A graph whose
    logits come from no product that can be told stays as it is.
    """
    import numpy as np
    import onnx

    producers = graph.producers()
    node = producers.get("logits")
    while node is not None and node.op_type != "MatMul":
        node = producers.get(node.input[0])  # a cap on logits, and the like
    if node is None:
        return
    name, kept = LOGITS_FROM, f"{node.input[0]}.kept"
    graph.weights |= {name: np.zeros(1, np.int64), f"{name}.end": np.array([np.iinfo(np.int64).max])}
    graph.weights[f"{name}.axis"] = np.ones(1, np.int64)
    cut = [node.input[0], name, f"{name}.end", f"{name}.axis"]
    sliced = onnx.helper.make_node("Slice", cut, [kept], name=name)
    node.input[0] = kept
    graph.nodes.insert(list(graph.nodes).index(node), sliced)
    graph.model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]))


def lower_opset(graph: Graph, version: int) -> None:
    """Write the graph in an older opset, so that more runtimes read it.

    Raises `EdgeError` for an operator that the older opset does not have.
    """
    import onnx

    for node in graph.nodes:
        if node.domain:
            continue
        if node.op_type == "RMSNormalization":
            # The same computation under the name that onnxruntime has had for years.
            node.op_type = "SimplifiedLayerNormalization"
            continue
        try:
            onnx.defs.get_schema(node.op_type, version)
        except onnx.defs.SchemaError:
            raise EdgeError(f"the ONNX graph uses {node.op_type}, which opset {version} does not have") from None
    for opset in graph.model.opset_import:
        if not opset.domain:
            opset.version = version
    graph.model.ir_version = min(graph.model.ir_version, 10)


def name_batch(graph: Graph) -> None:
    """Call the first dimension of every input and output `batch_size`.

    transformers.js makes the empty cache from the names of its dimensions; of a name that it does not know it makes 0.
    """
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_param == "batch":
            dims[0].dim_param = "batch_size"
