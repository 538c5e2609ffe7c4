"""Our session, through the same `generate` as chat and serve.

python -m benchmarks.contestants.edge_session BUNDLE THREADS PROMPT_TOKENS NEW_TOKENS [DEEP_TOKENS]
"""

from __future__ import annotations

import io
import json
import sys

from edge.runtimes import meter
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling


def decoded(model: Model, n_prompt: int, n_new: int) -> float:
    """Tokens per second, answering after `n_prompt` tokens."""
    gaps = meter.token_times_ms(model, meter.prompt_ids(model, n_prompt), n_new)
    return 1e3 * len(gaps) / sum(gaps)


def _see(model: Model) -> None:
    from edge.export.corpus.pictures import draw, picture

    file = io.BytesIO()
    draw(picture(1)).save(file, "PNG")
    parts = [{"type": "image", "data": file.getvalue()}, {"type": "text", "text": "What is it?"}]
    for _ in model.generate([{"role": "user", "content": parts}], Sampling(max_tokens=1)):
        pass


if __name__ == "__main__":
    folder, (threads, n_prompt, n_new, *deep) = sys.argv[1], map(int, sys.argv[2:])
    with open_bundle(folder, threads=threads, check=False) as model:
        decoded(model, 8, 8)  # warms up
        prefill_s = meter.prefill_s(model, n_prompt)
        found = {"prefill_tokens_per_s": n_prompt / prefill_s, "decode_tokens_per_s": decoded(model, 16, n_new)}
        if deep:
            if "vision" in model.bundle.parts:
                _see(model)  # its memory is that of both parts
            decoded(model, deep[0], 8)  # warms up what runs only there
            found["deep_decode_tokens_per_s"] = decoded(model, deep[0], n_new)
    print(json.dumps({**found, "peak_rss_bytes": meter.peak_rss_bytes()}))
