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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge.export import preflight
from edge.export.calibrate import Calibration, activation_statistics
from edge.export.checkpoint import Checkpoint
from edge.progress import Progress, Silent

if TYPE_CHECKING:
    from mmap import mmap

    import numpy as np

    from edge.readers.tflite import TfliteHeader

KEPT = "smoothing.npz"  # beside the artifact, so that its weights can still be compared with their source
_LAYER = re.compile(r"(.*\blayers\.\d+)\.self_attn\.o_proj\.weight")
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


def factors(checkpoint: Checkpoint, calibration: Calibration, progress: Progress | None = None) -> dict[str, Factor]:
    """Factors by tensor name that leave the model as it is; `{}` where none is known to.

    Whether they do is tried on the source itself: architectures give the same names to different things.
    """
    if not preflight.holds_source(checkpoint):
        return {}
    squares = activation_statistics(checkpoint, calibration, progress or Silent())
    for with_gains in (True, False):
        pairs = _pairs(checkpoint, squares, with_gains=with_gains)
        found = _merged((name, factor) for name, factor in pairs if name in checkpoint.tensors)
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
    checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], *, with_gains: bool
) -> Iterator[tuple[str, Factor]]:
    """Who makes a channel and who reads it, layer by layer."""
    import numpy as np

    layers = [m[1] for name in checkpoint.tensors if (m := _LAYER.fullmatch(name))]
    for layer in layers:
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        for gain, readers in (
            (f"{layer}.input_layernorm.weight", [f"{attention}.{x}_proj.weight" for x in "qkv"]),
            (f"{layer}.post_attention_layernorm.weight", [f"{mlp}.{x}_proj.weight" for x in ("gate", "up")]),
        ):
            if with_gains and _all_there((gain, *readers), checkpoint, squares, readers):
                s = _scale(checkpoint, squares, readers)
                yield gain, Factor(rows=1 / s)
                yield from ((name, Factor(columns=s)) for name in readers)
        value, out = f"{attention}.v_proj.weight", f"{attention}.o_proj.weight"
        if _all_there((value, out), checkpoint, squares, [out]):
            # Queries share values: one factor for all channels that come from the same one.
            s = _scale(checkpoint, squares, [out])
            n_values = checkpoint.tensors[value].shape[0]
            width = _head_width(checkpoint)
            grouped = s.reshape(n_values // width, -1, width)
            s = np.broadcast_to(grouped.max(1, keepdims=True), grouped.shape)
            yield value, Factor(rows=1 / s[:, 0].reshape(-1))
            yield value.replace(".weight", ".bias"), Factor(rows=1 / s[:, 0].reshape(-1))
            yield out, Factor(columns=s.reshape(-1))
        up, down = f"{mlp}.up_proj.weight", f"{mlp}.down_proj.weight"
        if _all_there((up, down), checkpoint, squares, [down]):
            s = _scale(checkpoint, squares, [down])
            yield up, Factor(rows=1 / s)
            yield up.replace(".weight", ".bias"), Factor(rows=1 / s)
            yield down, Factor(columns=s)


def _all_there(
    names: tuple[str, ...], checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], measured: list[str]
) -> bool:
    return all(n in checkpoint.tensors for n in names) and all(n in squares for n in measured)


def _scale(checkpoint: Checkpoint, squares: Mapping[str, np.ndarray], readers: list[str]) -> np.ndarray:
    """Of each channel that `readers` read, around 1."""
    import numpy as np

    used = np.sqrt(np.maximum(squares[readers[0]], 1e-12))
    largest = np.max([np.abs(checkpoint.read(name)).max(0) for name in readers], axis=0)
    s = np.sqrt(used / np.maximum(largest, 1e-6))
    out: np.ndarray = (s / np.exp(np.log(s).mean())).astype(np.float32)
    return out


def _head_width(checkpoint: Checkpoint) -> int:
    config = checkpoint.text_config
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


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
    parameters = dict(model.named_parameters())
    with torch.inference_mode():
        before = model(input_ids=ids, use_cache=False).logits
        for name, factor in made.items():
            if (parameter := parameters.get(name)) is None:
                return False
            parameter.copy_(torch.from_numpy(factor.of(parameter.numpy())))
        after = model(input_ids=ids, use_cache=False).logits
    return float((after - before).norm()) <= _SAME * float(before.norm())
