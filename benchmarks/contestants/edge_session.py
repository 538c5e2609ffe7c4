"""Our session, through the same `generate` as chat and serve.

python -m benchmarks.contestants.edge_session BUNDLE THREADS PROMPT_TOKENS NEW_TOKENS [DEEP_TOKENS]
"""

from __future__ import annotations

import json
import sys

from edge.runtimes import meter
from edge.runtimes.model import Model, open_bundle


def decoded(model: Model, n_prompt: int, n_new: int) -> float:
    """Tokens per second, answering after `n_prompt` tokens."""
    gaps = meter.token_times_ms(model, meter.prompt_ids(model, n_prompt), n_new)
    return 1e3 * len(gaps) / sum(gaps)


if __name__ == "__main__":
    folder, (threads, n_prompt, n_new, *deep) = sys.argv[1], map(int, sys.argv[2:])
    with open_bundle(folder, threads=threads, check=False) as model:
        decoded(model, 8, 8)  # warms up
        prefill_s = meter.prefill_s(model, n_prompt)
        found = {"prefill_tokens_per_s": n_prompt / prefill_s, "decode_tokens_per_s": decoded(model, 16, n_new)}
        if deep:
            if "vision" in model.bundle.parts:
                from benchmarks.contestants.edge_vision import see

                see(model, 1)  # its memory is that of both parts
            decoded(model, deep[0], 8)  # warms up what runs only there
            found["deep_decode_tokens_per_s"] = decoded(model, deep[0], n_new)
    print(json.dumps({**found, "peak_rss_bytes": meter.peak_rss_bytes()}))
