"""A conversation's cache in a file, so that it goes on without being read again.

    talk.json         who said what
    talk.json.cache   what the model made of it: keys and values, as the runtime holds them

It is taken back by the very bundle that it is of, on the same build of the same runtime, or not at all:
then the conversation is read again, as if there were no such file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, InputError
from edge.find import load
from edge.runtimes.model import Model

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"edge cache 1\n"
_HEADER_LIMIT_BYTES = 64 << 20
WORTH = 128  # tokens; fewer are read again sooner than they come from a card


def beside(conversation: Path) -> Path:
    """Where the cache of a saved conversation is."""
    return conversation.with_name(conversation.name + ".cache")


def keep(model: Model, path: Path) -> bool:
    """Write what the model's cache holds, atomically and for this user alone; False when it is not worth it.

    A file that was there and is not worth it any more is removed.
    """
    held = model.held
    whole = len(held) == model.session.position and len(held) >= WORTH
    try:
        arrays = model.session.keep() if whole and hasattr(model.session, "keep") else None
    except EdgeError:  # a picture that is placed in rows and columns
        arrays = None
    if arrays is None:
        path.unlink(missing_ok=True)
        return False
    header = {
        **_identity(model),
        "held": held,
        "arrays": [{"dtype": str(a.dtype), "shape": a.shape} for a in arrays],
    }
    words = json.dumps(header, separators=(",", ":")).encode()
    digest = hashlib.sha256(words)
    for array in arrays:
        digest.update(_bytes(array))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(_MAGIC + digest.digest() + len(words).to_bytes(8, "little") + words)
            for array in arrays:
                f.write(_bytes(array))
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return True


def restore(model: Model, path: Path) -> int:
    """Put a kept cache back; how many tokens it holds, 0 when there is none.

    Raises `InputError` when it is damaged or of something else; the model's cache is empty then.
    """
    if not path.is_file() or not hasattr(model.session, "restore"):
        return 0
    header, arrays = _read(path)
    for name, value in _identity(model).items():
        if header.get(name) != value:
            raise InputError(f"{path} is of another {name}")
    held = header["held"]
    if len(held) > model.context_length:
        raise InputError(f"{path} holds {len(held)} tokens, and {model.context_length} fit")
    try:
        model.session.restore(len(held), arrays)
    except (ValueError, TypeError, IndexError) as err:  # other arrays than a session of this kind keeps
        raise InputError(f"{path} is not what the model keeps") from err
    model.hold(held)
    return len(held)


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    import numpy as np

    with path.open("rb") as f:
        magic, wanted, n = f.read(len(_MAGIC)), f.read(32), int.from_bytes(f.read(8), "little")
        if magic != _MAGIC or n > _HEADER_LIMIT_BYTES:
            raise InputError(f"{path} is no kept cache")
        words = f.read(n)
        digest = hashlib.sha256(words)
        try:
            header = json.loads(words)
            shapes = [(np.dtype(a["dtype"]), tuple(map(int, a["shape"]))) for a in header["arrays"]]
            held = header["held"]
            # Of nothing less than bytes: a runtime is told how many rows there are, and reads them.
            sound = all(isinstance(i, int) for i in held) and all(i > 0 for _, shape in shapes for i in shape)
            sound = sound and all(dtype.itemsize and not dtype.hasobject for dtype, _ in shapes)
            sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in shapes]
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError, SyntaxError):
            sound, sizes = False, []
        rest = path.stat().st_size - f.tell()
        if not sound or sum(sizes) != rest:
            raise InputError(f"{path} is cut short or damaged")
        arrays = []
        for (dtype, shape), size in zip(shapes, sizes, strict=True):
            data = f.read(size)
            digest.update(data)
            arrays.append(np.frombuffer(data, dtype).reshape(shape))
    if digest.digest() != wanted:
        raise InputError(f"{path} is damaged: its sha256 is not what it says")
    return header, arrays


def _identity(model: Model) -> dict[str, Any]:
    """What must be the same for a cache to mean the same."""
    return {
        "bundle": model.bundle.id,
        "runtime": load("edge.runtimes.engines", model.bundle.format).build(),
        "machine": platform.machine(),
    }


def _bytes(array: np.ndarray) -> memoryview:
    import numpy as np

    return np.ascontiguousarray(array).data.cast("B")
