"""A KV cache of 8 bits in ONNX: GroupQueryAttention's own, with one fixed scale for each channel of each head.

Scales are those that leave the smallest squared error on calibration text. The first token is the same in all
conversations, and most of what later ones attend to; its values are small, so rounding moves every answer the same
way. Values are held less those of it, which are nought then, and are given back behind attention, whose shares add up
to one. That saves a third of what rounding costs SmolLM2-135M.

Rounding does not cost the same everywhere: of its thirty layers, two make a quarter of all that it changes. So what
rounding one layer alone does to the logits is measured, and the costliest layers keep float32 until the rest is cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError
from edge.export.gate.logits import log_softmax

if TYPE_CHECKING:
    import numpy as np

    from edge.export.onnx_graph import Graph
    from edge.progress import Progress
    from edge.runtimes.engines.onnx import OnnxSession

# Nats, for the sum of what each rounded layer costs alone. Together, and on held-out text, they cost SmolLM2-135M three
# to four times that, and a thousandth is what they may cost.
CHEAP_KLD = 2e-4
_MOST_WIDE = 0.25  # of all layers
_WIDE_BYTES = 4  # of an element of a layer that is kept
_ROWS_BYTES = 256 << 20  # of keys and values that scales are chosen from
_CLIPS = 25  # candidates for a channel's scale, from 0.4 of its largest value to all of it
_JUDGED_WINDOWS = 3
_SEEN_EXACTLY = 8  # tokens that see each other's keys and values as they were, while a layer is judged
_VALUE = ".value"
_LAYER = re.compile(r"past_key_values\.(\d+)\.")
_SCALE_INPUTS = 12  # where GroupQueryAttention takes the scale of keys, and then that of values


@dataclass(frozen=True)
class Held:
    """How a tensor of the cache is held in int8: `(x - less) / step`, both float32 `(heads, width)`."""

    step: np.ndarray
    less: np.ndarray

    def rounded(self, rows: np.ndarray) -> np.ndarray:
        """Rows `(heads, tokens, width)` as they are held."""
        import numpy as np

        step, less = self.step[:, None], self.less[:, None]
        out: np.ndarray = np.clip(np.round((rows - less) / step), -128, 127) * step + less
        return out


def ways_to_hold(session: OnnxSession, windows: Sequence[Sequence[int]], progress: Progress) -> dict[str, Held]:
    """For each tensor of the cache how it is held; `windows` begin as conversations do."""
    import numpy as np

    token_bytes = sum(a[:, :, :1].nbytes for a in session.cache.values())
    most = max(1, _ROWS_BYTES // token_bytes // max(map(len, windows)))
    chosen = windows[:: -(-len(windows) // most)]
    progress.start("looking at keys and values", len(chosen))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in session.cache}
    for i, window in enumerate(chosen, 1):
        session.rewind(0)
        session.feed(window[: session.context_length])
        for name, held in session.cache.items():
            rows[name].append(held[0, :, : session.position].astype(np.float32))
        progress.advance(i)
    session.rewind(0)
    made = {}
    for name, parts in rows.items():
        first: np.ndarray = np.mean([part[:, 0] for part in parts], axis=0)
        # Keys turn with their places, so that nothing which stays the same could be taken from them before.
        less = first if name.endswith(_VALUE) else np.zeros_like(first)
        made[name] = Held(best_scale(np.concatenate(parts, axis=1) - less[:, None]), less)
    return made


def best_scale(rows: np.ndarray) -> np.ndarray:
    """Of rows `(heads, tokens, width)` the steps `(heads, width)` with the smallest squared error in int8."""
    import numpy as np

    top = np.maximum(np.abs(rows).max(1), 1e-9)
    best, least = top, np.full(top.shape, np.inf, np.float32)
    for share in np.linspace(1.0, 0.4, _CLIPS, dtype=np.float32):
        step = top * share / 127
        error = ((Held(step, np.zeros_like(step)).rounded(rows) - rows) ** 2).sum(1)
        best = np.where(error < least, step, best)
        least = np.minimum(error, least)
    out: np.ndarray = best.astype(np.float32)
    return out


def costs(
    session: OnnxSession, ways: Mapping[str, Held], windows: Sequence[Sequence[int]], progress: Progress
) -> dict[int, float]:
    """For each layer the mean KLD, in nats, of what follows when its cache alone is rounded.

    `session` must not round anything itself, or its own noise covers what is looked for.
    """
    import numpy as np

    judged = windows[:: max(1, len(windows) // _JUDGED_WINDOWS)][:_JUDGED_WINDOWS]
    layers = sorted({_layer(name) for name in ways})
    found = dict.fromkeys(layers, 0.0)
    progress.start("rounding keys and values, layer by layer", len(judged))
    for i, window in enumerate(judged, 1):
        half = len(window) // 2
        session.rewind(0)
        session.feed(window[:half])
        before = log_softmax(session.feed_all(window[half:]))
        for layer in layers:
            kept = {name: session.cache[name][0, :, :half].copy() for name in ways if _layer(name) == layer}
            session.rewind(half)
            _round(session, kept, ways, 0)
            answers: list[np.ndarray] = []
            for at in range(half, len(window), _SEEN_EXACTLY):
                answers.append(session.feed_all(window[at : at + _SEEN_EXACTLY]).copy())
                _round(session, kept, ways, at)
            after = log_softmax(np.concatenate(answers))
            found[layer] += float((np.exp(before) * (before - after)).sum(-1).mean()) / len(judged)
            for name, rows in kept.items():
                session.cache[name][0, :, :half] = rows
        progress.advance(i)
    session.rewind(0)
    return found


def _round(session: OnnxSession, names: Iterable[str], ways: Mapping[str, Held], start: int) -> None:
    for name in names:
        rows = session.cache[name][0, :, start : session.position]
        rows[:] = ways[name].rounded(rows)


def wide(cost: Mapping[int, float]) -> tuple[int, ...]:
    """The layers that keep their cache as it is: the costliest, until the rest is cheap or a quarter of them is kept.

    >>> wide({0: 5e-5, 1: 9e-4, 2: 5e-5, 3: 5e-5})
    (1,)
    """
    order = sorted(cost, key=lambda layer: cost[layer], reverse=True)
    n = 0
    while n < _most_wide(len(order)) and sum(cost[layer] for layer in order[n:]) > CHEAP_KLD:
        n += 1
    return tuple(sorted(order[:n]))


def most_element_bytes(n_layers: int) -> float:
    """Of an element of the whole cache, on the average, when as many layers are kept as may be.

    >>> most_element_bytes(30)
    1.7
    """
    return 1 + (_WIDE_BYTES - 1) * _most_wide(n_layers) / n_layers


def _most_wide(n_layers: int) -> int:
    return int(_MOST_WIDE * n_layers)


def narrow(graph: Graph, ways: Mapping[str, Held], keep: Sequence[int]) -> float:
    """Let every layer but those of `keep` hold int8; bytes of an element of the whole cache then, on the average.

    Raises `EdgeError` when the graph's attention is not GroupQueryAttention.
    """
    import onnx

    done: set[str] = set()
    for node in list(graph.nodes):
        if node.op_type != "GroupQueryAttention" or _layer(node.input[3]) in keep:
            continue
        key, value = node.input[3], node.input[4]
        inputs = [*node.input, *[""] * (_SCALE_INPUTS - len(node.input)), f"{key}.step", f"{value}.step"]
        del node.input[:]
        node.input.extend(inputs)
        for name in (key, value):
            graph.weights[f"{name}.step"] = ways[name].step[None, :, None]
            done |= {name, name.replace("past_key_values", "present")}
        for word, setting in (
            ("k_quant_type", "PER_CHANNEL"),
            ("v_quant_type", "PER_CHANNEL"),
            ("kv_cache_bit_width", 8),
        ):
            node.attribute.append(onnx.helper.make_attribute(word, setting))
        _shift(graph, node, ways[value].less)
    inner = graph.model.graph
    for value_info in (*inner.input, *inner.output, *inner.value_info):
        if value_info.name in done:
            value_info.type.tensor_type.elem_type = onnx.TensorProto.INT8
    if not done:
        raise EdgeError("this ONNX graph has no attention that could hold its keys and values in 8 bits")
    past = [i for i in inner.input if _LAYER.match(i.name)]
    return sum(_element_bytes(i) for i in past) / len(past)


def _shift(graph: Graph, node: Any, less: np.ndarray) -> None:
    """Hold values less `less` `(heads, width)`, and give it back behind attention."""
    import numpy as np
    import onnx

    if not less.any():
        return
    heads = {a.name: a.i for a in node.attribute}
    into = 2 if node.input[2] else 0  # values of their own, or behind queries and keys in one tensor
    of_each_query = np.repeat(less, heads["num_heads"] // heads["kv_num_heads"], axis=0)
    width = less.shape[1] * (heads["num_heads"] + heads["kv_num_heads"]) if into == 0 else 0
    given, taken = node.input[into], node.output[0]
    for name, row in (("less", np.concatenate([np.zeros(width, np.float32), -less.ravel()])),
                      ("more", of_each_query.ravel())):  # fmt: skip
        graph.weights[f"{taken}.{name}"] = row.astype(np.float32)
    node.input[into], node.output[0] = f"{taken}.given", f"{taken}.raw"
    at = list(graph.nodes).index(node)
    graph.nodes.insert(at + 1, onnx.helper.make_node("Add", [f"{taken}.raw", f"{taken}.more"], [taken]))
    graph.nodes.insert(at, onnx.helper.make_node("Add", [given, f"{taken}.less"], [f"{taken}.given"]))


def _element_bytes(value_info: Any) -> int:
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(value_info.type.tensor_type.elem_type).itemsize)


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    if found is None:
        raise EdgeError(f"{name!r} is no part of a KV cache as edge writes it")
    return int(found[1])
