"""Weights that stay in the checkpoint until they are written: for models whose float32 file nobody wants to make.

mobius builds the same graph without weights, and leaves open what it would have computed from them: the
matrices that it puts below one another, and turns. Both are done here, when a weight is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.onnx_graph import Graph
from edge.export.onnx_ledger import balance, source_matrix
from edge.export.unread import Unread

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SourceWeight(Unread):
    """An array that is read whenever NumPy asks for it: the `source` tensors below one another, perhaps turned."""

    checkpoint: Checkpoint
    source: tuple[str, ...]
    turned: bool = False
    type: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [self.checkpoint.tensors[name].shape for name in self.source]
        whole = (sum(s[0] for s in shapes), *shapes[0][1:])
        return whole[::-1] if self.turned else whole

    @property
    def dtype(self) -> np.dtype[Any]:
        import numpy as np

        return np.dtype(self.type)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = source_matrix(self.checkpoint, self.source)
        return (values.T if self.turned else values).astype(dtype or self.dtype, copy=False)

    def astype(self, dtype: Any) -> SourceWeight:
        """The same weight in another type, still unread."""
        import numpy as np

        return replace(self, type=np.dtype(dtype).name)


def fold(graph: Graph, checkpoint: Checkpoint) -> tuple[Entry, ...]:
    """Put the checkpoint's weights into a graph that was built without any; the account of all of them.

    1. What a node reads and nothing gives must be a tensor of the checkpoint, or what mobius makes of one.
    2. A Concat of such tensors, and a Transpose of one, become weights themselves; the matrix that embedding and
       head share stays as it is.

    Raises `EdgeError` when 1 fails, or when a tensor is left over or used twice.
    """
    _find_again(graph, checkpoint)
    open_names = _open_names(graph)
    if unknown := sorted(open_names - set(checkpoint.tensors)):
        raise EdgeError(
            f"the ONNX graph of {checkpoint.name} reads {unknown[0]}, which is no tensor of the checkpoint",
            hint="this architecture is not converted without its weights; choose another format",
        )
    for name in open_names:
        graph.weights[name] = SourceWeight(checkpoint, (name,))  # type: ignore[assignment]
    _fold_nodes(graph, "Concat")
    _fold_nodes(graph, "Transpose")
    graph.drop_unused()
    return balance(checkpoint, [_entry(name, weight) for name, weight in graph.weights.items()])


def folds(graph: Graph, checkpoint: Checkpoint) -> bool:
    """Whether all that the graph was built without are tensors of the checkpoint."""
    _find_again(graph, checkpoint)
    return _open_names(graph) <= set(checkpoint.tensors)


def _open_names(graph: Graph) -> set[str]:
    """What nodes read and nothing gives."""
    given = {i.name for i in graph.model.graph.input} | set(graph.weights) | set(graph.producers())
    return {name for node in graph.nodes for name in node.input if name and name not in given}


def _find_again(graph: Graph, checkpoint: Checkpoint) -> None:
    """Read the checkpoint's tensor where mobius would have copied or cut it.

    1. A head that is the embedding's is not stored twice.
    2. Queries, keys and values that the checkpoint has in one tensor (Phi-3) are cut and put together again.
    """
    renamed = {}
    if checkpoint.config.get("tie_word_embeddings") and "lm_head.weight" not in checkpoint.tensors:
        renamed["lm_head.weight"] = "model.embed_tokens.weight"
    whole = []
    for node in graph.nodes:
        fused = re.sub(r"\bq_proj\b", "qkv_proj", node.input[0]) if node.op_type == "Concat" else ""
        parts = [fused.replace("qkv_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
        if fused in checkpoint.tensors and list(node.input) == parts:
            renamed[node.output[0]] = fused
            whole.append(node)
    graph.replace(whole, [])
    for node in graph.nodes:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def attach(graph: Graph, checkpoint: Checkpoint, ledger: tuple[Entry, ...]) -> Graph:
    """Give a graph that `fold` made and that was saved without its weights those weights again."""
    for entry in ledger:
        for target in entry.target:
            if entry.source and target not in graph.weights:
                turned = entry.transform == "permute" or target.endswith("_t")
                graph.weights[target] = SourceWeight(checkpoint, entry.source, turned)  # type: ignore[assignment]
    return graph


def _fold_nodes(graph: Graph, kind: str) -> None:
    used = Counter(name for node in graph.nodes for name in node.input)
    gone: dict[str, str] = {}
    for node in graph.nodes:
        read = [graph.weights.get(name) for name in node.input]
        if node.op_type != kind or not all(isinstance(w, SourceWeight) for w in read):
            continue
        weights: list[Any] = read
        if kind == "Transpose":
            if used[node.input[0]] > 1:
                continue
            name, made = f"{node.input[0]}_t", replace(weights[0], turned=True)
        else:
            name = "__".join([*node.input, "axis_0", "concat"])
            made = replace(weights[0], source=tuple(s for w in weights for s in w.source))
        graph.weights[name] = made
        gone[node.output[0]] = name
    kept = [node for node in graph.nodes if node.output[0] not in gone]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = gone.get(name, name)
    del graph.nodes[:]
    graph.nodes.extend(kept)


def _entry(name: str, weight: Any) -> Entry:
    if not isinstance(weight, SourceWeight):
        return Entry((), (name,), str(weight.dtype), weight.size, weight.nbytes, "fold", "made by the exporter")
    transform = "pack" if len(weight.source) > 1 else "permute" if weight.turned else "copy"
    return Entry(weight.source, (name,), "float32", weight.size, weight.nbytes, transform, "read from the source")
