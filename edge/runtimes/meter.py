"""What one process measures of one bundle: time and memory, by the clock and the kernel's own counts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edge.profile import meminfo
from edge.runtimes.model import Model
from edge.runtimes.session import Sampling, generate

# Plain words, so that the tokens of a prompt are of the common kind in every tokenizer.
_TEXT = (
    "The lighthouse keeper climbed the stairs every evening, lit the lamp and wrote down what the sea was like. "
    "In summer there were fishing boats and children on the rocks; in winter there was nobody for weeks. "
)
_PROBE_BYTES = 256 << 20
_PROBE_ROUNDS = 5


def peak_rss_bytes() -> int:
    """The most memory this process has held in RAM so far, files that are mapped included."""
    return meminfo(Path("/proc/self/status").read_text()).get("VmHWM", 0)


def rss_bytes() -> int:
    """What this process holds in RAM now."""
    return meminfo(Path("/proc/self/status").read_text()).get("VmRSS", 0)


def prompt_ids(model: Model, n_tokens: int) -> list[int]:
    """A prompt of exactly `n_tokens`, of plain English."""
    once = model.tokenizer.encode(_TEXT, add_special=False, parse_special=False)
    return (once * (n_tokens // len(once) + 1))[:n_tokens]


def prefill_s(model: Model, n_tokens: int) -> float:
    """Seconds to read a prompt into an empty cache, until the first token's logits are there."""
    ids = prompt_ids(model, n_tokens)
    model.session.rewind(0)
    began = time.perf_counter()
    model.session.feed(ids)
    return time.perf_counter() - began


def token_times_ms(model: Model, prompt: Sequence[int], n_tokens: int) -> list[float]:
    """Milliseconds between one greedy token and the next, the first left out: `n_tokens` values.

    Nothing ends the answer early, so that every repetition computes the same.
    """
    model.session.rewind(0)
    stamps = [t.time_ns for t in generate(model.session, prompt, Sampling(max_tokens=n_tokens + 1))]
    return [(b - a) / 1e6 for a, b in itertools.pairwise(stamps)]


def read_bandwidth_bytes_per_s(threads: int) -> float:
    """How fast `threads` threads read memory: the best of a few sums over more than any cache holds."""
    import numpy as np

    parts = [np.ones(_PROBE_BYTES // threads // 8, np.int64) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_PROBE_ROUNDS):
            began = time.perf_counter()
            list(pool.map(np.max, parts))
            best = max(best, sum(p.nbytes for p in parts) / (time.perf_counter() - began))
    return best


def kv_bytes(model: Model, context_length: int) -> int | None:
    """What the cache takes at `context_length`, from the manifest."""
    memory: dict[str, Any] = dict(model.bundle.memory)
    each = memory.get("kv_bytes_per_token")
    return int(each) * context_length if each else None
