"""Our time to the first token of a question about a picture, in its parts.

python -m benchmarks.contestants.edge_vision BUNDLE THREADS PICTURES
"""

from __future__ import annotations

import io
import json
import statistics
import sys

from edge.export.corpus.pictures import draw, picture
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling


def see(model: Model, seed: int) -> None:
    """Ask what is in a picture, up to the first token."""
    file = io.BytesIO()
    draw(picture(seed)).save(file, "PNG")
    parts = [{"type": "image", "data": file.getvalue()}, {"type": "text", "text": "What is in the picture?"}]
    for _ in model.generate([{"role": "user", "content": parts}], Sampling(max_tokens=1)):
        pass


if __name__ == "__main__":
    folder, threads, n = sys.argv[1], *map(int, sys.argv[2:4])
    samples: dict[str, list[float]] = {"preprocess_ms": [], "encode_ms": [], "prefill_ms": [], "first_token_ms": []}
    with open_bundle(folder, threads=threads, check=False) as model:
        for seed in range(n + 2):  # the first two load the encoder and warm the caches
            see(model, seed)
            stats = model.stats
            if seed < 2 or stats is None or stats.ttft_ms is None:
                continue
            samples["preprocess_ms"].append(stats.preprocess_ms)
            samples["encode_ms"].append(stats.encode_ms)
            samples["prefill_ms"].append(stats.ttft_ms - stats.encode_ms)
            samples["first_token_ms"].append(stats.preprocess_ms + stats.ttft_ms)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    print(json.dumps({**medians, "encodes_per_s": 1e3 / medians["encode_ms"]}))
