"""What the teacher says at every token of a text, kept compactly: its likeliest next tokens and how much is left.

A record for each token: the token itself, the ids of the `k` likeliest next ones, their log-probabilities in half
precision, and that of all others together. 32 of a vocabulary of at most 65,536 are 134 bytes, 24 of a larger one 150.
Records lie in shards of many texts, each a file that is mapped and never loaded; a shard's hash is written into the
index when it is whole, so a run that was stopped goes on with the next one, and a damaged shard is made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bundle import sha256_of
from edge.errors import EdgeError, InputError
from edge.progress import Progress

if TYPE_CHECKING:
    import torch

MOST_BYTES = 150  # for each token
_SHARD_TEXTS = 128
_SPARE_BYTES = 256 << 20  # a full disk hurts everyone

LEAST = -6e4  # of logarithms that half precision holds

Answers = Callable[[Sequence[Sequence[int]]], "Iterable[torch.Tensor]"]


def fitting(k: int, vocab_size: int) -> int:
    """How many of the likeliest tokens a record has room for: at most `k`, and not all of a tiny vocabulary."""
    width = 2 if vocab_size <= 1 << 16 else 4
    return min(k, (MOST_BYTES - 6) // (width + 2), vocab_size - 1)


def record_type(k: int, vocab_size: int) -> np.dtype[Any]:
    """`token`, `rest` (log of what is left), `ids` and `logs` of the k likeliest, most likely first."""
    ids = "<u2" if vocab_size <= 1 << 16 else "<u4"
    return np.dtype([("token", "<u4"), ("rest", "<f2"), ("ids", ids, (k,)), ("logs", "<f2", (k,))])


def compress(tokens: Sequence[int], logits: torch.Tensor, k: int) -> np.ndarray:
    """Records of one text from the teacher's logits `(tokens, vocab)`."""
    out = np.zeros(len(tokens), record_type(k, logits.shape[1]))
    logits = logits.float()
    whole = logits.logsumexp(-1, keepdim=True)
    best, ids = logits.topk(k, -1)
    # The rest from its own terms: one minus what was kept loses everything when that is nearly one.
    rest = logits.scatter(1, ids, -float("inf")).logsumexp(-1, keepdim=True)
    out["token"], out["ids"] = tokens, ids.numpy()
    out["logs"] = (best - whole).clamp(min=LEAST).numpy()
    out["rest"] = (rest - whole).clamp(min=LEAST)[:, 0].numpy()
    return out


class Store:
    """The records of texts, mapped. `store[i]` are those of text i, `(tokens,)`."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self._kind = record_type(index["k"], index["vocab_size"])
        self._places: list[tuple[int, int, int]] = []  # shard, first record, records
        self._shards: list[np.ndarray] = []
        self.k, self.vocab_size = int(index["k"]), int(index["vocab_size"])
        for n, shard in enumerate(index["shards"]):
            start = 0
            for length in shard["lengths"]:
                self._places.append((n, start, length))
                start += length
            self._shards.append(np.memmap(folder / shard["file"], self._kind, "r", shape=(start,)))
        self.n_tokens = sum(length for _, _, length in self._places)
        self.n_bytes = self.n_tokens * self._kind.itemsize

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> np.ndarray:
        shard, start, length = self._places[i]
        return self._shards[shard][start : start + length]


def build(
    folder: Path, texts: Sequence[Sequence[int]], answers: Answers, *, k: int, vocab_size: int, progress: Progress
) -> Store:
    """The store of `texts`, made where it is not whole. `answers(texts)` gives logits `(tokens, vocab)`,
    one text after the other.

    Raises `EdgeError` before anything is written when the disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    k = fitting(k, vocab_size)
    kind = record_type(k, vocab_size)
    _refuse_full_disk(folder, sum(map(len, texts)) * kind.itemsize)
    index: dict[str, Any] = {"k": k, "vocab_size": vocab_size, "shards": []}
    done = _index(folder)
    progress.start("asking the teacher about every token", sum(map(len, texts)))
    asked = 0
    for n, at in enumerate(range(0, len(texts), _SHARD_TEXTS)):
        part = texts[at : at + _SHARD_TEXTS]
        name = f"shard-{n:05}.bin"
        lengths = [len(text) for text in part]
        row = done["shards"][n] if done and n < len(done["shards"]) and done["k"] == k else None
        path = folder / name
        sound = row and row["lengths"] == lengths and path.is_file() and sha256_of(path) == row["sha256"]
        if not row or not sound:
            row = _put(path, [compress(t, a, k) for t, a in zip(part, answers(part), strict=True)])
        index["shards"].append(row)
        _write_index(folder, index)
        asked += sum(lengths)
        progress.advance(asked)
    return Store(folder, index)


def write(folder: Path, texts: Iterable[np.ndarray], *, k: int, vocab_size: int, of: str) -> Store:
    """The store of records `(tokens,)` that there are, one array a text; left alone when made `of` the same."""
    done = _index(folder)
    if done is not None and done.get("of") == of:
        return open_store(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"k": k, "vocab_size": vocab_size, "of": of, "shards": []}
    left = iter(texts)
    while part := list(islice(left, _SHARD_TEXTS)):
        _refuse_full_disk(folder, sum(text.nbytes for text in part))
        index["shards"].append(_put(folder / f"shard-{len(index['shards']):05}.bin", part))
    _write_index(folder, index)
    return Store(folder, index)


def _put(path: Path, texts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Write a shard, whole or not at all; what the index says of it."""
    work = path.with_suffix(".part")
    np.concatenate(texts).tofile(work)
    os.replace(work, path)
    return {"file": path.name, "lengths": [len(text) for text in texts], "sha256": sha256_of(path)}


def open_store(folder: Path) -> Store:
    """A finished store; every shard is compared with its hash. `InputError` when one is damaged or there is none."""
    index = _index(folder)
    if index is None:
        raise InputError(f"{folder} holds no teacher's answers", hint="run it again: they are made anew")
    for shard in index["shards"]:
        path = folder / shard["file"]
        if not path.is_file() or sha256_of(path) != shard["sha256"]:
            raise InputError(f"{path} is damaged: its hash is not the index's", hint="run it again: it is made anew")
    return Store(folder, index)


def _index(folder: Path) -> dict[str, Any] | None:
    try:
        data = json.loads((folder / "index.json").read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and {"k", "vocab_size", "shards"} <= set(data) else None


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    work = folder / "index.part"
    work.write_text(json.dumps(index))
    os.replace(work, folder / "index.json")


def _refuse_full_disk(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes + _SPARE_BYTES > free:
        raise EdgeError(
            f"no room for the teacher's answers at {folder}: they take {n_bytes / 1e6:,.0f} MB, "
            f"{_SPARE_BYTES / 1e6:.0f} MB must stay free, and {free / 1e6:,.0f} MB are free",
            hint="free some space, set EDGE_CACHE to a folder on a larger disk, or ask for fewer tokens under [text]",
        )
