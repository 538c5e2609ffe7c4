"""What routers do with a text: which experts compute which tokens, and what those experts are fed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge.export import experts
from edge.export.checkpoint import Checkpoint
from edge.export.experts import Layer

if TYPE_CHECKING:
    import numpy as np

    from edge.export.calibrate import Calibration
    from edge.progress import Progress

STARVED_SHARE = 0.1  # of the tokens that an expert would get if all were chosen equally often
_LAYER = re.compile(r"\blayers\.(\d+)\.")


def key(layer: int) -> str:
    """Under which activation statistics hold a layer's `(2, experts)`: tokens routed, and the sum of their weights."""
    return f"experts.{layer}.use"


def layer_of(name: str, module: Any, layers: Mapping[int, Layer]) -> Layer | None:
    """The layer whose experts this module of `transformers` holds, as its two stacks of matrices."""
    found = _LAYER.search(name)
    if found is None or not hasattr(module, "gate_up_proj") or getattr(module, "down_proj", None) is None:
        return None
    return layers.get(int(found[1])) if getattr(module.down_proj, "ndim", 0) == 3 else None


def watch(module: Any, layer: Layer, add: Callable[[str, Any], None]) -> Any:
    """A hook that calls `add(key, x)` for gate, up and down of each expert with the tokens that it is fed.

    The keys are `layer.keys(expert)`. Gate and up get the same array.
    """
    import torch.nn.functional as F

    def hook(_: Any, inputs: tuple[Any, ...]) -> None:
        hidden, chosen = inputs[0], inputs[1]
        for e in range(len(module.down_proj)):
            rows = hidden[(chosen == e).any(-1)]
            if not len(rows):
                continue
            gate, up, down = layer.keys(e)
            add(gate, rows)
            add(up, rows)
            a, b = F.linear(rows, module.gate_up_proj[e]).chunk(2, -1)
            add(down, module.act_fn(a) * b)

    return module.register_forward_pre_hook(hook)


@contextmanager
def choices(model: Any, checkpoint: Checkpoint, add: Callable[[int, Any, Any], None]) -> Iterator[None]:
    """While the block runs, `add(layer, chosen, weights)` is called for each layer: both `(tokens, used)`."""
    layers = {layer.index: layer for layer in experts.layers(checkpoint)}
    handles = []
    for name, module in model.named_modules() if layers else ():
        layer = layer_of(name, module, layers)
        if layer is not None:
            handles.append(
                module.register_forward_pre_hook(lambda _, inputs, i=layer.index: add(i, inputs[1], inputs[2]))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def counting(model: Any, checkpoint: Checkpoint) -> Iterator[dict[int, list[np.ndarray]]]:
    """Counts of the block: for each layer the tokens of each expert, and the sum of the weights they had."""
    import numpy as np

    found: dict[int, list[np.ndarray]] = {}
    n = experts.count(checkpoint.config) if experts.layers(checkpoint) else 0

    def add(layer: int, chosen: Any, weights: Any) -> None:
        tokens, mass = found.setdefault(layer, [np.zeros(n), np.zeros(n)])
        flat = chosen.reshape(-1).numpy()
        tokens += np.bincount(flat, minlength=n)
        mass += np.bincount(flat, weights=weights.reshape(-1).float().numpy(), minlength=n)

    with choices(model, checkpoint, add):
        yield found


def tokens(statistics: Mapping[str, np.ndarray], checkpoint: Checkpoint) -> dict[int, list[int]]:
    """Tokens of each expert by layer, from what calibration measured."""
    found = {}
    for layer in experts.layers(checkpoint):
        if key(layer.index) in statistics:
            found[layer.index] = [int(v) for v in statistics[key(layer.index)][0]]
    return found


def measured(checkpoint: Checkpoint, calibration: Calibration, progress: Progress) -> tuple[dict[str, Any], list[str]]:
    """`report` of a calibration text, under the name `experts`; nothing for a model without experts."""
    from edge.export.calibrate import activation_statistics

    if not experts.layers(checkpoint):
        return {}, []
    record, warnings = report(tokens(activation_statistics(checkpoint, calibration, progress), checkpoint))
    return {"experts": record}, warnings


def starved(use: Mapping[int, Sequence[int]]) -> list[tuple[int, int, int]]:
    """Experts that were chosen for less than a tenth of an even share: (layer, expert, tokens), the least first."""
    found = []
    for layer, counts in use.items():
        even = sum(counts) / len(counts)
        found += [(layer, e, n) for e, n in enumerate(counts) if n < STARVED_SHARE * even]
    return sorted(found, key=lambda row: row[2])


def report(use: Mapping[int, Sequence[int]]) -> tuple[dict[str, Any], list[str]]:
    """What goes into the plan about the experts' calibration, and a warning when some were starved."""
    if not use:
        return {}, []
    poor = starved(use)
    record = {
        "tokens": {str(layer): list(counts) for layer, counts in use.items()},
        "starved": [{"layer": layer, "expert": e, "tokens": n} for layer, e, n in poor],
    }
    if not poor:
        return record, []
    layer, e, n = poor[0]
    total = sum(len(counts) for counts in use.values())
    even = sum(use[layer]) // len(use[layer])
    return record, [
        f"{len(poor)} of {total} experts were hardly used by the calibration text (expert {e} of layer {layer}: {n:,} "
        f"tokens, an even share is {even:,}); they are quantized with little to go by: calibrate with text of every "
        f"kind that the model is meant for"
    ]
