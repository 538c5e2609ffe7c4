"""Does a session stay within its file, its cache and 150 MB?

TFLite's `int8-weights` and `int8-gptq` are no subjects: LiteRT unpacks them to float32, and their manifests say so.
"""

from __future__ import annotations

import sys

from benchmarks import race
from benchmarks.race import Claim, Contestant
from edge import bundle as bundles

_SCRATCH_BYTES = 150_000_000
_SUBJECTS = {
    "gguf": ("q4_k_m", "q8_0", "f32"),
    "onnx": ("int4", "int8", "fp32"),
    "tflite": ("int4", "int8", "fp32"),
}


def main() -> int:
    args = race.arguments(__doc__, rounds=3).parse_args()
    contestants, allowed = [], {}
    for format_name, quantizations in _SUBJECTS.items():
        for quantization in quantizations:
            folder = race.bundle("smollm2", format_name, quantization)
            memory = bundles.read(folder).memory
            name = f"{format_name} {quantization}"
            allowed[name] = memory["weights_bytes"] + memory["kv_bytes_at_context"] + _SCRATCH_BYTES
            contestants.append(
                Contestant(name, race.contestant("edge_session", folder, args.threads, 512, args.tokens))
            )
    done = race.run(__doc__, contestants, rounds=args.rounds)
    says = "peak RSS over file + KV cache + 150 MB"
    claims = [
        Claim("peak_rss_bytes", name, "allowed", at_most=1.0, says=f"{says}, {name}", fixed=bound)
        for name, bound in allowed.items()
    ]
    return race.keep("session_memory", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
