"""What does a KV cache of 8 bits cost, and how much of the memory does it take?

Weights are those of half or full precision, so that nothing but the cache differs: quantized weights would answer
each change, however small, with other roundings of activations. Held-out text of the gate, 2,560 positions.

    python -m benchmarks.kv_cache
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim
from edge import bundle as bundles

_SUBJECTS = {"gguf": "f16", "onnx": "fp32"}
_WINDOWS = 20
_MOST_KLD = 1e-3
_MOST_MEMORY = 0.55  # q8_0 has a scale for each 32 values


def main() -> int:
    race.arguments(__doc__).parse_args()
    load = race.settled()
    samples, about, claims = {}, {}, []
    for format_name, quantization in _SUBJECTS.items():
        wide, narrow = (race.bundle("smollm2", format_name, quantization, kv=kv) for kv in (None, "8bit"))
        name = f"{format_name} {quantization}, cache of 8 bits"
        samples[name] = [_measure(wide, narrow)]
        about[name] = str(bundles.read(narrow).plan["kv_cache"].get("type"))
        claims += [
            Claim("mean_kld", name, "allowed", at_most=1.0, says=f"mean KLD, {name}", fixed=_MOST_KLD),
            Claim(
                "of_the_memory", name, "allowed", at_most=1.0, says=f"share of the memory, {name}", fixed=_MOST_MEMORY
            ),
        ]
    done = race.Race(__doc__, about, samples, load)
    return race.keep("kv_cache", done, race.judge(done, claims))


def _measure(wide: Path, narrow: Path) -> dict[str, float]:
    import numpy as np

    import edge
    from edge.export import calibrate
    from edge.export.gate.logits import log_softmax

    with edge.open(wide) as exact, edge.open(narrow) as rounded:
        windows = calibrate.held_out(exact.tokenizer, exact.template).windows[:_WINDOWS]
        found, same = [], []
        for window in windows:
            exact.session.rewind(0)
            rounded.session.rewind(0)
            p = log_softmax(exact.session.feed_all(window))
            q = log_softmax(rounded.session.feed_all(window))
            found.append((np.exp(p) * (p - q)).sum(-1))
            same.append(p.argmax(-1) == q.argmax(-1))
    klds = np.concatenate(found)
    memory = [bundles.read(folder).memory["kv_bytes_per_token"] for folder in (wide, narrow)]
    return {
        "mean_kld": float(klds.mean()),
        "p99_kld": float(np.quantile(klds, 0.99)),
        "same_top1": float(np.concatenate(same).mean()),
        "positions": float(klds.size),
        "of_the_memory": memory[1] / memory[0],
    }


if __name__ == "__main__":
    sys.exit(main())
