"""onnxruntime-genai's own loop on a folder with genai_config.json.

python -m benchmarks.contestants.genai FOLDER THREADS PROMPT_TOKENS NEW_TOKENS
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime_genai as genai


def with_threads(folder: Path, threads: int, work: Path) -> Path:
    """The same model with as many threads as the other contestants, in a folder of links."""
    for path in folder.rglob("*"):
        target = work / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.name != "genai_config.json":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
    config = json.loads((folder / "genai_config.json").read_text())
    options = config["model"]["decoder"].setdefault("session_options", {})
    options["intra_op_num_threads"] = threads
    config["search"]["past_present_share_buffer"] = True
    (work / "genai_config.json").write_text(json.dumps(config))
    return work


def answer(model: genai.Model, prompt: list[int], n_new: int) -> tuple[float, float]:
    """Seconds to the first token, seconds for each token after it."""
    params = genai.GeneratorParams(model)
    total = len(prompt) + n_new + 1
    params.set_search_options(max_length=max(total, 2048), min_length=total, do_sample=False)
    generator = genai.Generator(model, params)
    began = time.perf_counter()
    generator.append_tokens(prompt)
    generator.generate_next_token()
    first = time.perf_counter()
    for _ in range(n_new):
        generator.generate_next_token()
    return first - began, (time.perf_counter() - first) / max(1, n_new)


if __name__ == "__main__":
    folder, threads, n_prompt, n_new = sys.argv[1], *map(int, sys.argv[2:5])
    with tempfile.TemporaryDirectory() as work:
        model = genai.Model(str(with_threads(Path(folder), threads, Path(work))))
    words = [1000 + (i * 37) % 20000 for i in range(n_prompt)]
    answer(model, words[:8], 8)
    prefill_s, _ = answer(model, words, 1)
    _, token_s = answer(model, words[:16], n_new)
    print(json.dumps({"decode_tokens_per_s": 1 / token_s, "prefill_tokens_per_s": n_prompt / prefill_s}))
