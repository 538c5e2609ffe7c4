"""LiteRT-LM's own benchmark on a .litertlm file.

python -m benchmarks.contestants.litert_lm FILE THREADS PROMPT_TOKENS NEW_TOKENS DEEP_TOKENS
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litert_lm as lm


def run(path: str, threads: int, n_prompt: int, n_new: int) -> Any:
    return lm.Benchmark(
        path,
        backend=lm.Backend.CPU(thread_count=threads),
        prefill_tokens=n_prompt,
        decode_tokens=n_new,
        max_num_tokens=2048,
    ).run()


if __name__ == "__main__":
    path, (threads, n_prompt, n_new, n_deep) = sys.argv[1], map(int, sys.argv[2:6])
    lm.set_min_log_severity(lm.LogSeverity.ERROR)
    run(path, threads, 16, 8)  # warms up
    print(
        json.dumps(
            {
                "prefill_tokens_per_s": run(path, threads, n_prompt, 8).last_prefill_tokens_per_second,
                "decode_tokens_per_s": run(path, threads, 16, n_new).last_decode_tokens_per_second,
                "deep_decode_tokens_per_s": run(path, threads, n_deep, n_new).last_decode_tokens_per_second,
            }
        )
    )
