"""Where the vision part's tensors went: found again by their values, every one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edge.errors import EdgeError
from edge.export.artifact import Entry
from edge.export.checkpoint import Checkpoint
from edge.export.vision.tower import unused

if TYPE_CHECKING:
    import numpy as np


def account(
    checkpoint: Checkpoint, vision: Sequence[str], stored: Iterable[tuple[str, np.ndarray]], *, where: str
) -> tuple[Entry, ...]:
    """One entry for every vision tensor and every stored array of a float32 file.

    An array is the tensor with the same values, as they are or turned. A tensor whose values are
    stored for another one already is a `tie`; a layer norm's weight and bias may be multiplied into
    the matrices behind it (`fold`, recomputed and compared); one that the features do not depend
    on is dropped with the reason. Raises `EdgeError` naming the tensors that are lost.
    """
    import numpy as np

    waiting: dict[str, list[str]] = {}
    more: dict[str, str] = {}  # Gemma's norms multiply by one more than their weight
    cut: list[Entry] = []
    arrays = {target: np.asarray(array) for target, array in stored}
    places: dict[str, list[str]] = {}
    for name in vision:
        array = checkpoint.read(name)
        if parts := _pieces(name, array):
            places = places or _by_print(arrays)
            found = [next(iter(places.get(_print(part), ())), "") for part in parts]
            if all(found):
                kept = [arrays.pop(target) for target in found]
                size = sum(a.size for a in kept), sum(a.nbytes for a in kept)
                cut.append(Entry((name,), tuple(found), str(kept[0].dtype), *size, "split"))
                for part in parts:
                    places[_print(part)].pop(0)
                continue
        waiting.setdefault(_print(array), []).append(name)
        if name.endswith("norm.weight"):
            more[_print(array + np.float32(1))] = name
    seen: set[str] = set()
    strange: dict[str, np.ndarray] = {}
    out = cut
    for target, values in arrays.items():
        for kind, candidate in _orders(values):
            key = _print(candidate)
            if waiting.get(key):
                source = waiting[key].pop(0)
                seen.add(key)
                out.append(Entry((source,), (target,), str(values.dtype), values.size, values.nbytes, kind))
                break
        else:
            source, note = more.pop(_print(values), ""), "one was added: the norm multiplies by that"
            if values.dtype == np.float16:  # what the format keeps in 16 bits, whatever was asked for
                source, note = (
                    _halved(checkpoint, values, [n for names in waiting.values() for n in names]),
                    "in 16 bits",
                )
            home = next((names for names in waiting.values() if source in names), None)
            if home is None:
                strange[target] = values
                continue
            home.remove(source)
            out.append(Entry((source,), (target,), str(values.dtype), values.size, values.nbytes, "fold", note))
    out += _folded(checkpoint, [n for names in waiting.values() for n in names], strange, waiting)
    for target, values in strange.items():
        out.append(Entry((), (target,), str(values.dtype), values.size, values.nbytes, "fold", "made by the exporter"))
    lost = []
    for key, names in waiting.items():
        for name in names:
            if reason := unused(checkpoint, name):
                out.append(Entry((name,), (), "", 0, 0, "drop", reason))
            elif key in seen:
                out.append(Entry((name,), (), "", 0, 0, "tie", "the same values as another tensor, stored once"))
            else:
                lost.append(name)
    if lost:
        raise EdgeError(
            f"{len(lost)} vision tensors are unaccounted for after the conversion to {where}: {', '.join(lost[:3])}",
            hint="this architecture is not converted faithfully; nothing was written",
        )
    return tuple(out)


def _pieces(name: str, array: np.ndarray) -> list[np.ndarray]:
    """The parts that formats cut a tensor into: queries, keys and values; the frames of a video's patch."""
    import numpy as np

    if ".qkv." in name:
        return np.split(array, 3)
    return [array[:, :, i] for i in range(array.shape[2])] if array.ndim == 5 else []


def _by_print(arrays: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for target, values in arrays.items():
        found.setdefault(_print(values), []).append(target)
    return found


def _halved(checkpoint: Checkpoint, values: np.ndarray, names: Sequence[str]) -> str:
    """The tensor whose values in float16 are these, or an empty name."""
    import numpy as np

    shapes = {name: checkpoint.tensors[name].shape for name in names}
    same = [name for name, shape in shapes.items() if shape == values.shape]
    return next((n for n in same if np.array_equal(checkpoint.read(n).astype(np.float16), values)), "")


def _folded(
    checkpoint: Checkpoint, names: Sequence[str], strange: dict[str, np.ndarray], waiting: dict[str, list[str]]
) -> list[Entry]:
    """Norms that an exporter multiplied into the matrices behind them: W' = W * weight, b' = b + W bias.

    What is found is taken out of `strange` and `waiting`.
    """
    import numpy as np

    out = []
    left = {name: checkpoint.read(name) for name in names if len(checkpoint.tensors[name].shape) < 3}

    def take(wanted: np.ndarray) -> str | None:
        for target, values in strange.items():
            if values.shape == wanted.shape and np.allclose(values, wanted, rtol=1e-4, atol=1e-5):
                return target
        return None

    for norm in [n.removesuffix(".weight") for n, a in left.items() if a.ndim == 1 and n.endswith(".weight")]:
        weight, bias = left[f"{norm}.weight"], left.get(f"{norm}.bias")
        parent = norm.rpartition(".")[0] + "."
        source, target = [f"{norm}.weight", *([f"{norm}.bias"] if bias is not None else [])], []
        for name, matrix in left.items():
            linear = name.removesuffix(".weight")
            if not name.startswith(parent) or matrix.ndim != 2 or matrix.shape[1] != len(weight):
                continue
            places = [take(matrix * weight)]
            shift = left.get(f"{linear}.bias")
            if shift is not None and bias is not None:
                places.append(take(shift + matrix @ bias))
            if all(place is not None for place in places):
                source += [name, f"{linear}.bias"][: len(places)]
                target += [str(place) for place in places]
        if not target:
            continue
        arrays = [strange.pop(t) for t in target]
        for name in source:
            left.pop(name)
            next(names for names in waiting.values() if name in names).remove(name)
        size = sum(a.size for a in arrays), sum(a.nbytes for a in arrays)
        note = "the layer norm is multiplied into the matrices behind it"
        out.append(Entry(tuple(source), tuple(target), str(arrays[0].dtype), *size, "fold", note))
    return out


def _orders(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The array as it is, and as formats turn it: a matrix, and a convolution with its channels last."""
    yield "copy", values
    if values.ndim == 2:
        yield "permute", values.T
    elif values.ndim == 4:
        yield "permute", values.transpose(0, 3, 1, 2)


def _print(array: np.ndarray) -> str:
    """A fingerprint of the values in order; dimensions of size one do not count."""
    import numpy as np

    shape = [n for n in array.shape if n > 1]
    return f"{shape} {hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()}"
