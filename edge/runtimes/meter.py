"""What one process measures of one bundle: time and memory, by the clock and the kernel's own counts."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_PROBE_S = 0.4  # for each way of reading; the best moment counts
_SUSTAINED_PROMPT, _SUSTAINED_TOKENS = 16, 240  # short and always the same, so that depth does not change the speed


@dataclass(frozen=True)
class Answer:
    """One prompt and its answer: seconds to the first token and in all, milliseconds between one token and the next."""

    first_s: float
    gaps_ms: list[float]
    total_s: float


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
    return answer(model, n_tokens, 0).first_s


def answer(model: Model, n_prompt: int, n_new: int) -> Answer:
    """Read a prompt into an empty cache and answer it greedily with one token and `n_new` more.

    Nothing ends the answer early, so that every repetition computes the same. Times are those at which each token's
    logits were there.
    """
    ids = prompt_ids(model, n_prompt)
    model.session.rewind(0)
    began = time.perf_counter_ns()
    stamps = [t.time_ns for t in generate(model.session, ids, Sampling(max_tokens=n_new + 1))]
    return Answer(
        first_s=(stamps[0] - began) / 1e9,
        gaps_ms=[(b - a) / 1e6 for a, b in itertools.pairwise(stamps)],
        total_s=(stamps[-1] - began) / 1e9,
    )


def token_times_ms(model: Model, prompt: Sequence[int], n_tokens: int) -> list[float]:
    """Milliseconds between one greedy token and the next, the first left out: `n_tokens` values."""
    model.session.rewind(0)
    stamps = [t.time_ns for t in generate(model.session, prompt, Sampling(max_tokens=n_tokens + 1))]
    return [(b - a) / 1e6 for a, b in itertools.pairwise(stamps)]


def sustain(model: Model, seconds: float, see: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answer one short prompt again and again for `seconds`; a point for each window of time.

    A point has `at_s` (its end, since the beginning), `tokens`, `tokens_per_s` (over the time between tokens alone:
    reading the prompt anew is left out), `made` (all tokens, those too whose time is not known) and what `see` tells
    of the machine.
    """
    window_s = max(1.0, seconds / 120)
    ids = prompt_ids(model, _SUSTAINED_PROMPT)
    n_new = min(_SUSTAINED_TOKENS, model.context_length - len(ids) - 1)
    began = window_began = time.perf_counter()
    tokens, spent_ns, made = 0, 0, 0
    while True:
        model.session.rewind(0)
        last_ns = None
        for token in generate(model.session, ids, Sampling(max_tokens=n_new)):
            if last_ns is not None:
                tokens, spent_ns = tokens + 1, spent_ns + token.time_ns - last_ns
            last_ns = token.time_ns
            made += 1
            now = time.perf_counter()
            if tokens and now - window_began >= window_s:
                rate = 1e9 * tokens / spent_ns
                yield {"at_s": now - began, "tokens": tokens, "tokens_per_s": rate, "made": made, **see()}
                if now - began >= seconds:
                    return
                # Looking at the machine takes a moment, which is no token's.
                tokens, spent_ns, made, window_began, last_ns = 0, 0, 0, time.perf_counter(), None


def read_bandwidth_bytes_per_s(threads: int, available_bytes: int | None = None) -> float:
    """How fast `threads` threads read memory: the best of many passes over more than any cache holds.

    A quarter of the free memory at most, so that a small device does not begin to swap for it.
    """
    # Products run on the threads here, not on BLAS's own: those are told before it loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np

    size = min(_PROBE_BYTES, available_bytes // 4) if available_bytes else _PROBE_BYTES
    parts = [np.ones(max(1, size // threads // 8), np.int64) for _ in range(threads)]
    floats = [part.view(np.float32) for part in parts]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        # Which of the two keeps more loads in flight depends on the processor.
        for ways, arrays in ((np.max, parts), (_squared, floats)):
            until = time.perf_counter() + _PROBE_S
            while (began := time.perf_counter()) < until:
                list(pool.map(ways, arrays))
                best = max(best, sum(p.nbytes for p in parts) / (time.perf_counter() - began))
    return best


def _squared(values: Any) -> Any:
    return values.dot(values)


def kv_bytes(model: Model, context_length: int) -> int | None:
    """What the cache takes at `context_length`, from the manifest."""
    memory: dict[str, Any] = dict(model.bundle.memory)
    each = memory.get("kv_bytes_per_token")
    return int(each) * context_length if each else None
