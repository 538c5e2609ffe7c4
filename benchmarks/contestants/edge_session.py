"""Our session, through the same `generate` as chat and serve.

python -m benchmarks.contestants.edge_session BUNDLE THREADS PROMPT_TOKENS NEW_TOKENS
"""

from __future__ import annotations

import json
import sys

from edge.runtimes import meter
from edge.runtimes.model import open_bundle

if __name__ == "__main__":
    folder, threads, n_prompt, n_new = sys.argv[1], *map(int, sys.argv[2:5])
    with open_bundle(folder, threads=threads, check=False) as model:
        meter.token_times_ms(model, meter.prompt_ids(model, 8), 8)
        prefill_s = meter.prefill_s(model, n_prompt)
        gaps = meter.token_times_ms(model, meter.prompt_ids(model, 16), n_new)
    print(
        json.dumps(
            {
                "decode_tokens_per_s": 1e3 * len(gaps) / sum(gaps),
                "prefill_tokens_per_s": n_prompt / prefill_s,
                "peak_rss_bytes": meter.peak_rss_bytes(),
            }
        )
    )
