"""Where the vision part's tensors went: found again by their values, every one of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
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
    stored for another one already is a `tie`; one that the features do not depend on is dropped
    with the reason. Raises `EdgeError` naming the tensors that are lost.
    """
    import numpy as np

    waiting: dict[str, list[str]] = {}
    for name in vision:
        waiting.setdefault(_print(checkpoint.read(name)), []).append(name)
    seen: set[str] = set()
    out = []
    for target, array in stored:
        values = np.asarray(array)
        for turned in (False, True) if values.ndim == 2 else (False,):
            key = _print(values.T if turned else values)
            if waiting.get(key):
                source = waiting[key].pop(0)
                seen.add(key)
                kind = "permute" if turned else "copy"
                out.append(Entry((source,), (target,), str(values.dtype), values.size, values.nbytes, kind))
                break
        else:
            out.append(
                Entry((), (target,), str(values.dtype), values.size, values.nbytes, "fold", "made by the exporter")
            )
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


def _print(array: np.ndarray) -> str:
    """A fingerprint of the values in order; dimensions of size one do not count."""
    import numpy as np

    shape = [n for n in array.shape if n > 1]
    return f"{shape} {hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()}"
