"""The account of an ONNX conversion: every source tensor exactly once, every value found again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.errors import EdgeError
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.onnx_graph import Graph

if TYPE_CHECKING:
    import numpy as np

_PARTS = (".blocks", ".scales", ".zero_points")


def ledger(checkpoint: Checkpoint, graph: Graph, known: tuple[Entry, ...] = ()) -> tuple[Entry, ...]:
    """Where every source tensor went in the float32 graph, by name, each value compared.

    `known` are entries that were made and compared before. mobius names a packed weight by its sources
    (`a__b__c__axis_0__concat`) and a turned one with `_t`; a weight of another name is looked for by
    its values. Raises `EdgeError` naming the tensors when one is lost, used twice or changed.
    """
    import numpy as np

    out = list(known)
    before = {target for entry in known for target in entry.target}
    named = {target: _sources(target, checkpoint) for target in graph.weights if target not in before}
    nameless = set(checkpoint.tensors) - {n for e in known for n in e.source} - {n for s in named.values() for n in s}
    for target, given in named.items():
        stored = graph.weights[target]
        source = given or _by_value(stored, nameless, checkpoint)
        if not source:
            out.append(Entry((), (target,), _type(stored), stored.size, stored.nbytes, "fold", "made by the exporter"))
            continue
        wanted = source_matrix(checkpoint, source)
        turned = stored.ndim == 2 and stored.shape == wanted.shape[::-1] and target.endswith("_t")
        if not given:  # found by its values, one way round or the other
            turned = not np.array_equal(stored, wanted)
        if not np.array_equal(stored.T if turned else stored, wanted):
            raise EdgeError(
                f"{', '.join(source)} changed on the way to ONNX: {target} holds other values",
                hint="this architecture is not converted faithfully; nothing was written",
            )
        transform = "pack" if len(source) > 1 else "permute" if turned else "copy"
        out.append(Entry(source, (target,), _type(stored), stored.size, stored.nbytes, transform))
    return balance(checkpoint, out)


def balance(checkpoint: Checkpoint, entries: list[Entry]) -> tuple[Entry, ...]:
    """The account with the tied head; raises `EdgeError` for tensors that are lost or used twice."""
    out = list(entries)
    counts = Counter(name for entry in out for name in entry.source)
    lost = sorted(set(checkpoint.tensors) - set(counts))
    for name in list(lost):
        if name.endswith("lm_head.weight") and checkpoint.config.get("tie_word_embeddings"):
            out.append(Entry((name,), (), "", 0, 0, "tie", "the same matrix as the token embedding, stored once"))
            lost.remove(name)
    twice = sorted(n for n, k in counts.items() if k > 1)
    for kind, names in (("unaccounted for", lost), ("accounted for twice", twice)):
        if names:
            raise EdgeError(
                f"{len(names)} source tensors are {kind} after the conversion to ONNX: {', '.join(names[:3])}",
                hint="this architecture is not converted faithfully; nothing was written",
            )
    return tuple(out)


def with_types(entries: tuple[Entry, ...], graph: Graph) -> tuple[Entry, ...]:
    """The same account for a graph in which matrices became blocks."""
    out = []
    for entry in entries:
        names = [n for target in entry.target for n in (target, *(target + p for p in _PARTS)) if n in graph.weights]
        if entry.target and not names:
            if entry.source:
                raise EdgeError(f"the quantized graph lacks {entry.target[0]}, which came from {entry.source[0]}")
            continue
        arrays = [graph.weights[n] for n in names]
        types = "+".join(dict.fromkeys(_type(a) for a in arrays))
        out.append(replace(entry, target=tuple(names), type=types, n_bytes=sum(a.nbytes for a in arrays)))
    return tuple(out)


def source_matrix(checkpoint: Checkpoint, source: tuple[str, ...]) -> np.ndarray:
    """The sources as one array, one below the other."""
    import numpy as np

    arrays = [checkpoint.read(name) for name in source]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=0)


def _sources(target: str, checkpoint: Checkpoint) -> tuple[str, ...]:
    for name in (target, target.removesuffix("_t")):
        if name in checkpoint.tensors:
            return (name,)
        parts = tuple(name.removesuffix("_concat").removesuffix("__axis_0_").split("__"))
        if len(parts) > 1 and all(p in checkpoint.tensors for p in parts):
            return parts
    return ()


def _by_value(stored: np.ndarray, names: set[str], checkpoint: Checkpoint) -> tuple[str, ...]:
    """The source tensor that holds these values as they are or turned, taken from `names`."""
    import numpy as np

    for name in sorted(names):
        for shape, values in ((stored.shape, stored), (stored.shape[::-1], stored.T)):
            if checkpoint.tensors[name].shape == shape and np.array_equal(values, checkpoint.read(name)):
                names.remove(name)
                return (name,)
    return ()


def _type(array: np.ndarray) -> str:
    return str(array.dtype)
