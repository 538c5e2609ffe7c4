"""Is a TFLite bundle read and answered as fast as LiteRT-LM reads and answers with the same weights?

Early in the context, where our session runs graphs that see 512 rows of the cache, and after 1,024 tokens, where it
runs what LiteRT-LM runs everywhere: graphs that see all 2,048.
"""

from __future__ import annotations

import sys

from benchmarks import race
from benchmarks.race import Claim, Contestant


def main() -> int:
    parser = race.arguments(__doc__)
    parser.add_argument("--quant", default="int4,int8", help="our quantizations (int4,int8)")
    args = parser.parse_args()
    words = (args.threads, 512, args.tokens, 1024)
    contestants, claims = [], []
    for quantization in args.quant.split(","):
        folder = race.bundle("smollm2", "tflite", quantization, also=("litertlm",))
        ours, theirs = f"edge {quantization}", f"LiteRT-LM {quantization}"
        contestants.append(Contestant(ours, race.contestant("edge_session", folder, *words)))
        contestants.append(Contestant(theirs, race.contestant("litert_lm", folder / "model.litertlm", *words)))
        claims += [
            Claim("decode_tokens_per_s", ours, theirs, at_least=1.3, says=f"decode, {quantization}"),
            Claim("prefill_tokens_per_s", ours, theirs, at_least=1.3, says=f"prefill of 512, {quantization}"),
            Claim("deep_decode_tokens_per_s", ours, theirs, at_least=0.97, says=f"decode after 1,024, {quantization}"),
        ]
    done = race.run(__doc__, contestants, rounds=args.rounds)
    return race.keep("decode_tflite", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
