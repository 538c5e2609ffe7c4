"""Outliers of activations moved into the weights before both are rounded to 8 bits.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): a runtime that rounds activations gives each token one
scale, so one large channel leaves the others few levels. Dividing a channel by s where it is made and
multiplying the column that reads it by s changes nothing but that. Here s is the square root of the
channel's root mean square over the column's largest weight; the paper takes the channel's maximum.
In a simulation with SmolLM2-135M (activations of 8 bits for each token, weights for each row) the mean
KLD went from 0.029 to 0.015 by maxima and to 0.010 by root mean squares; by weights alone it is 0.005.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge.export import expert_use, experts, preflight
from edge.export.calibrate import Calibration, activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.export.pack import head_width
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    from mmap import mmap

    import numpy as np

    from edge.readers.tflite import TfliteHeader

KEPT = "smoothing.npz"  # beside the artifact, so that its weights can still be compared with their source
_LAYER = re.compile(r"(.*\blayers\.\d+)\.self_attn\.o_proj\.weight")
# Whose input is smoothed: queries, keys and values; the output of attention; gate and up; down.
INPUTS = ("attention", "values", "mlp", "down")
_BY_GAINS = {"attention", "mlp"}  # made by a norm's gain, to which some architectures add 1
_SAME = 1e-4  # relative difference of logits that float32 leaves when nothing was changed but the order of factors
_TOKENS = 64


class Factor(NamedTuple):
    """What a tensor is multiplied by: its rows (a gain's or a bias's elements), and its columns."""

    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def of(self, tensor: np.ndarray) -> np.ndarray:
        out = tensor
        if self.rows is not None:
            out = out * (self.rows[:, None] if out.ndim == 2 else self.rows)
        return out if self.columns is None else out * self.columns


def factors(
    checkpoint: Checkpoint,
    calibration: Calibration,
    progress: Progress | None = None,
    *,
    inputs: Collection[str] = INPUTS,
    may: Callable[[str], bool] = lambda reader: True,
) -> dict[str, Factor]:
    """Factors by tensor name that leave the model as it is, for some of `INPUTS`; `{}` where none is known to.

    A channel is left alone unless every matrix that reads it `may` have its columns multiplied. Whether the model stays
    as it is, is tried on the source itself: architectures give the same names to different things.
    """
    if not preflight.holds_source(checkpoint):
        return {}
    squares = activation_statistics(checkpoint, calibration, progress or Silent())
    for chosen in (set(inputs), set(inputs) - _BY_GAINS):
        dense = ((name, f) for name, f in _pairs(checkpoint, squares, chosen, may) if name in checkpoint.tensors)
        found = _merged(chain(dense, _of_experts(checkpoint, squares, chosen, may)))
        if found and _leaves_alone(checkpoint, found, calibration.windows[0][:_TOKENS]):
            return found
    return {}


def apply(path: Path, made: Mapping[str, Factor]) -> None:
    """Multiply the float32 constants of a TFLite file where they stand."""
    import numpy as np

    from edge.export.tflite_ledger import base_name
    from edge.readers.tflite import rewrite

    def change(header: TfliteHeader, data: mmap) -> None:
        for tensor in header.constants().values():
            if (factor := made.get(base_name(tensor))) is not None:
                place = slice(tensor.offset, tensor.offset + tensor.n_bytes)
                values = np.frombuffer(data[place], np.float32).reshape(tensor.shape)
                data[place] = factor.of(values).astype(np.float32).tobytes()

    rewrite(path, change)


def keep(folder: Path, made: Mapping[str, Factor]) -> None:
    """Remember the factors beside an artifact."""
    import numpy as np

    arrays = {
        f"{name}/{side}": array
        for name, factor in made.items()
        for side, array in factor._asdict().items()
        if array is not None
    }
    np.savez(folder / KEPT, **arrays)


def kept(folder: Path) -> dict[str, Factor]:
    """The factors that an artifact was made with; `{}` when it was made without."""
    import numpy as np

    if not (folder / KEPT).is_file():
        return {}
    found: dict[str, Factor] = {}
    with np.load(folder / KEPT, allow_pickle=False) as stored:
        for key in stored.files:
            name, _, side = key.rpartition("/")
            found[name] = found.get(name, Factor())._replace(**{side: stored[key]})
    return found


def _pairs(
    checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], inputs: Collection[str], may: Callable[[str], bool]
) -> Iterator[tuple[str, Factor]]:
    """Who makes a channel and who reads it, layer by layer."""
    import numpy as np

    layers = [m[1] for name in checkpoint.tensors if (m := _LAYER.fullmatch(name))]
    for layer in layers:
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        for which, gain, readers in (
            ("attention", f"{layer}.input_layernorm.weight", [f"{attention}.{x}_proj.weight" for x in "qkv"]),
            ("mlp", f"{layer}.post_attention_layernorm.weight", [f"{mlp}.{x}_proj.weight" for x in ("gate", "up")]),
        ):
            if which in inputs and _all_there((gain, *readers), checkpoint, squares, readers, may):
                s = _scale(checkpoint, squares, readers)
                yield gain, Factor(rows=1 / s)
                yield from ((name, Factor(columns=s)) for name in readers)
        value, out = f"{attention}.v_proj.weight", f"{attention}.o_proj.weight"
        if "values" in inputs and _all_there((value, out), checkpoint, squares, [out], may):
            # Queries share values: one factor for all channels that come from the same one.
            s = _scale(checkpoint, squares, [out])
            n_values = checkpoint.tensors[value].shape[0]
            width = head_width(checkpoint.text_config)
            grouped = s.reshape(n_values // width, -1, width)
            s = np.broadcast_to(grouped.max(1, keepdims=True), grouped.shape)
            yield value, Factor(rows=1 / s[:, 0].reshape(-1))
            yield value.replace(".weight", ".bias"), Factor(rows=1 / s[:, 0].reshape(-1))
            yield out, Factor(columns=s.reshape(-1))
        up, down = f"{mlp}.up_proj.weight", f"{mlp}.down_proj.weight"
        if "down" in inputs and _all_there((up, down), checkpoint, squares, [down], may):
            s = _scale(checkpoint, squares, [down])
            yield up, Factor(rows=1 / s)
            yield up.replace(".weight", ".bias"), Factor(rows=1 / s)
            yield down, Factor(columns=s)


def _of_experts(
    checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], inputs: Collection[str], may: Callable[[str], bool]
) -> Iterator[tuple[str, Factor]]:
    """The same for experts, under `Layer.keys`: what a layer's router and experts read is made by one gain."""
    import numpy as np

    for layer in experts.layers(checkpoint):
        keys = [layer.keys(e) for e in range(experts.count(checkpoint.config))]
        matrices = [experts.read(checkpoint, layer, e) for e in range(len(keys))]
        gain = f"model.layers.{layer.index}.post_attention_layernorm.weight"
        fed = [squares[gate] for gate, _, _ in keys if gate in squares]
        both = [key for gate, up, _ in keys for key in (gate, up)]
        if "mlp" in inputs and gain in checkpoint.tensors and fed and all(map(may, both)):
            largest = np.max([np.abs(m).max(0) for gate, up, _ in matrices for m in (gate, up)], axis=0)
            s = _between(np.mean(fed, axis=0), largest)
            yield gain, Factor(rows=1 / s)
            yield layer.router, Factor(columns=s)
            for gate, up, _ in keys:
                yield from ((name, Factor(columns=s)) for name in (gate, up))
        for (_, up, down), (_, _, matrix) in zip(keys, matrices, strict=True):
            if "down" in inputs and down in squares and may(down):
                s = _between(squares[down], np.abs(matrix).max(0))
                yield up, Factor(rows=1 / s)
                yield down, Factor(columns=s)


def _all_there(
    names: tuple[str, ...], checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], readers: list[str],
    may: Callable[[str], bool],
) -> bool:  # fmt: skip
    return all(n in checkpoint.tensors for n in names) and all(n in squares and may(n) for n in readers)


def _scale(checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], readers: list[str]) -> np.ndarray:
    """Of each channel that `readers` read, around 1."""
    import numpy as np

    return _between(squares[readers[0]], np.max([np.abs(checkpoint.read(name)).max(0) for name in readers], axis=0))


def _between(squares: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Factors of channels with these mean squares, whose columns have these largest weights."""
    import numpy as np

    s = np.sqrt(np.sqrt(np.maximum(squares, 1e-12)) / np.maximum(largest, 1e-6))
    out: np.ndarray = (s / np.exp(np.log(s).mean())).astype(np.float32)
    return out


def _merged(pairs: Iterable[tuple[str, Factor]]) -> dict[str, Factor]:
    """A matrix that reads one channel and makes another has two factors."""
    found: dict[str, Factor] = {}
    for name, factor in pairs:
        before = found.get(name, Factor())
        found[name] = Factor(
            factor.rows if before.rows is None else before.rows,
            factor.columns if before.columns is None else before.columns,
        )
    return found


def _leaves_alone(checkpoint: Checkpoint, made: Mapping[str, Factor], tokens: object) -> bool:
    """Whether the source with these factors gives the logits that it gave before."""
    import torch

    from edge.export.reference import load_model

    model = load_model(checkpoint)
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        places = _places(model, checkpoint)
        before = model(input_ids=ids, use_cache=False).logits
        for name, factor in made.items():
            if (place := places.get(name)) is None:
                return False
            place.copy_(torch.from_numpy(factor.of(place.numpy())))
        after = model(input_ids=ids, use_cache=False).logits
    return float((after - before).norm()) <= _SAME * float(before.norm())


def _places(model: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """Where the loaded model holds each tensor of the checkpoint, those of experts under `Layer.keys`."""
    found = dict(model.named_parameters())
    layers = {layer.index: layer for layer in experts.layers(checkpoint)}
    for name, module in model.named_modules():
        if (layer := expert_use.layer_of(name, module, layers)) is None:
            continue
        inner = module.down_proj.shape[2]
        for e in range(len(module.down_proj)):
            gate, up, down = layer.keys(e)
            both = module.gate_up_proj[e]
            found |= {gate: both[:inner], up: both[inner:], down: module.down_proj[e]}
        # transformers calls a router by another name than the checkpoint does.
        block = f"{name.rpartition('.')[0]}."
        shape = (len(module.down_proj), module.down_proj.shape[1])
        found[layer.router] = next(p for n, p in model.named_parameters() if n.startswith(block) and p.shape == shape)
    return found
