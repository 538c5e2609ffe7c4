"""What a long stage has finished so far, one matrix at a time: on disk, so that it is neither in memory nor lost.

A stage that takes many minutes and is killed in its last one would begin again. With its matrices kept as they are
made, the next run reads those and makes the rest; and a matrix that lies in a file takes no memory until it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.export import cache
from edge.export.unread import Unread

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Pieces:
    """Arrays by the name of the matrix they were made from, below `kind`/`key` in the cache."""

    kind: str
    key: str

    def get(self, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays that `make` returned for `name`, now or in a run before this one; mapped, not read."""
        place = f"{self.kind}/{self.key}"
        piece = cache.key(name=name)
        if found := _read(cache.find(place, piece)):
            return found
        cache.discard(place, piece)
        with cache.building(place, piece) as folder:
            _write(folder, make())
        return _read(cache.find(place, piece)) or dict(make())

    def __contains__(self, name: str) -> bool:
        return bool(_read(cache.find(f"{self.kind}/{self.key}", cache.key(name=name))))

    def discard(self) -> None:
        """Forget them, once what they were made for is finished."""
        cache.discard(self.kind, self.key)


@dataclass(frozen=True)
class Rows(Unread):
    """Arrays of the same width below one another, put together when NumPy asks for it."""

    parts: Sequence[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        import numpy as np

        return np.concatenate([np.asarray(p) for p in self.parts]).astype(dtype or self.dtype, copy=False)


def _write(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array))


def _read(folder: Path | None) -> dict[str, np.ndarray]:
    """The arrays of a folder, mapped; none when there is no folder, or a file in it was cut short."""
    import numpy as np

    if folder is None:
        return {}
    try:
        return {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
    except (OSError, ValueError, EOFError):
        return {}
