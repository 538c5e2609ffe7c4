"""What a teacher wrote and what it said, kept for every recipe that asks the same: both take hours."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge.export import cache, calibrate
from edge.export.calibrate import Calibration
from edge.export.checkpoint import Checkpoint
from edge.export.distill import texts
from edge.export.distill.store import Store
from edge.progress import Progress


def own_words(
    teacher: Checkpoint, *, n_tokens: int, seed: int, progress: Progress, requests: Sequence[str] = ()
) -> Calibration:
    """Text of the teacher's, `n_tokens` or a few more, in windows; a longer text of the same seed begins with it.

    With `requests`, half of it are answers to those.
    """
    from edge.export.distill import own_words as words

    code = cache.code_of(words.__name__)
    own = n_tokens // 2 if requests else n_tokens
    written: list[list[int]] = []
    for asked, n in (((), own), (tuple(requests), n_tokens - own)):
        if n:
            folder = _folder("own-words", teacher.id, code, *asked)
            with _alone(folder, progress):
                path = folder / f"{seed}.jsonl"
                written += words.write(teacher, path, n_tokens=n, seed=seed, progress=progress, requests=asked)
    windows = tuple(tuple(text[: calibrate.WINDOW]) for text in written if len(text) > 1)
    source = f"what {teacher.name} wrote itself"
    return texts.of_windows(windows, f"{source}, half of it to {len(requests)} requests" if requests else source)


def answers(teacher: Checkpoint, windows: Sequence[Sequence[int]], k: int, progress: Progress) -> tuple[Store, Path]:
    """The teacher's `k` likeliest next tokens everywhere in a text, and the folder that they are in."""
    from edge.export.distill import asking

    asked = texts.of_windows([tuple(window) for window in windows], "").sha256
    folder = _folder("answers", teacher.id, cache.code_of(asking.__name__), asked, str(k))
    with _alone(folder, progress):
        return asking.ask(teacher, windows, folder, k, progress), folder


def _folder(kind: str, *of: str) -> Path:
    folder = cache.root() / kind / cache.key(of=of)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """One run at a time adds to a folder; the lock goes with the process that holds it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another run is asking the same teacher: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
