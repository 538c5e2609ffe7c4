"""The source's vision part in torch, on the same pictures.

python -m benchmarks.contestants.torch_vision SOURCE THREADS PICTURES
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time

import torch

from edge.export.corpus.pictures import draw, picture
from edge.export.reference import load_model
from edge.export.source import open_source
from edge.export.vision.rule import rule
from edge.export.vision.tower import tower
from edge.runtimes.image import open_image
from edge.runtimes.pixels import views

if __name__ == "__main__":
    source, threads, n = sys.argv[1], *map(int, sys.argv[2:4])
    torch.set_num_threads(threads)
    checkpoint = open_source(source)
    how, module = rule(checkpoint), tower(load_model(checkpoint))
    times = []
    with torch.inference_mode():
        for seed in range(n + 2):
            file = io.BytesIO()
            draw(picture(seed)).save(file, "PNG")
            values = torch.from_numpy(views(open_image(file.getvalue()), how).values)
            began = time.perf_counter_ns()
            module(values)
            times.append((time.perf_counter_ns() - began) / 1e6)
    encode_ms = statistics.median(times[2:])
    print(json.dumps({"encode_ms": encode_ms, "encodes_per_s": 1e3 / encode_ms}))
