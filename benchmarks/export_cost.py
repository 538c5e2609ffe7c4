"""Does an export of SmolLM2 to GGUF q4_k_m, gate included, take under 90 s and 3x the checkpoint in memory?"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Contestant

_LIMIT_S = 90.0
_LIMIT_OF_CHECKPOINT = 3.0
_PROGRAM = """
import json, resource, sys, time
from edge.export.pipeline import export
began = time.perf_counter()
export("smollm2", sys.argv[1], formats=["gguf"], quantization="q4_k_m")
took = time.perf_counter() - began
peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024
print(json.dumps({"export_s": took, "peak_rss_bytes": peak}))
"""


def main() -> int:
    args = race.arguments(__doc__, rounds=3).parse_args()
    from edge.export.source import open_source

    checkpoint = open_source("smollm2")
    float32_bytes = 4 * checkpoint.n_parameters
    samples = []
    for _ in range(args.rounds):
        # An empty cache, but for the unpacked sources of llama.cpp and the checkpoint itself: a download's worth.
        with tempfile.TemporaryDirectory() as work:
            samples.append(_once(Path(work), checkpoint.folder))
    done = race.Race(__doc__, {"edge": "an empty cache"}, {"edge": samples}, samples[0].pop("load"))
    claims = [
        Claim(quantity, "edge", "allowed", at_most=1.0, says=says, fixed=bound)
        for quantity, bound, says in (
            ("export_s", _LIMIT_S, "seconds over 90"),
            ("peak_rss_bytes", _LIMIT_OF_CHECKPOINT * float32_bytes, "peak RSS over 3x the checkpoint in float32"),
        )
    ]
    return race.keep("export_cost", done, race.judge(done, claims))


def _once(work: Path, checkpoint: Path) -> dict[str, float]:
    import os

    from edge import profile
    from edge.export import cache

    load = profile.conditions().load_average or 0.0
    fresh = work / "cache"
    fresh.mkdir()
    for name in ("sources", "llama.cpp", "checkpoints"):
        if (cache.root() / name).exists():
            (fresh / name).symlink_to(cache.root() / name)
    os.environ["EDGE_CACHE"] = str(fresh)
    try:
        began = time.perf_counter()
        found = race.once(Contestant("edge", (sys.executable, "-c", _PROGRAM, str(work / "out"))))
        print(f"  {json.dumps(found)} in {time.perf_counter() - began:.1f} s", flush=True)
    finally:
        del os.environ["EDGE_CACHE"]
    return {**found, "load": load}


if __name__ == "__main__":
    sys.exit(main())
