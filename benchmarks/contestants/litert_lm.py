"""LiteRT-LM's own benchmark on a .litertlm file.

python -m benchmarks.contestants.litert_lm FILE THREADS PROMPT_TOKENS NEW_TOKENS
"""

from __future__ import annotations

import json
import sys

import litert_lm as lm

if __name__ == "__main__":
    path, threads, n_prompt, n_new = sys.argv[1], *map(int, sys.argv[2:5])
    lm.set_min_log_severity(lm.LogSeverity.ERROR)
    for tokens in (8, n_new):  # the first run warms up
        found = lm.Benchmark(
            path,
            backend=lm.Backend.CPU(thread_count=threads),
            prefill_tokens=n_prompt,
            decode_tokens=tokens,
            max_num_tokens=2048,
        ).run()
    print(
        json.dumps(
            {
                "decode_tokens_per_s": found.last_decode_tokens_per_second,
                "prefill_tokens_per_s": found.last_prefill_tokens_per_second,
            }
        )
    )
