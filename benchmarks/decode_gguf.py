"""Is a GGUF bundle answered as fast as by llama.cpp's own loop in C, on the same file and threads?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Contestant

_SOURCE = Path(__file__).parent / "contestants" / "llama_loop.c"


def native_loop() -> Path:
    """The C loop, compiled against the library that our runtime loads."""
    import llama_cpp

    from edge.export import cache, llama_cpp_source

    sources, libraries = llama_cpp_source.folder(), Path(llama_cpp.__file__).parent / "lib"
    target = cache.root() / "benchmarks" / "llama_loop"
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            "cc", "-O3", str(_SOURCE), "-o", str(target),
            f"-I{sources}/include", f"-I{sources}/ggml/include",
            f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}",
        ],
        check=True,
    )  # fmt: skip
    return target


def main() -> int:
    parser = race.arguments(__doc__)
    parser.add_argument("--quant", default="q4_k_m,q4_0", help="quantizations of SmolLM2-135M (q4_k_m,q4_0)")
    args = parser.parse_args()
    loop = native_loop()
    contestants, claims = [], []
    for quantization in args.quant.split(","):
        folder = race.bundle("smollm2", "gguf", quantization)
        words = (args.threads, 512, args.tokens)
        ours, theirs = f"edge {quantization}", f"llama.cpp in C {quantization}"
        contestants += [
            Contestant(ours, race.contestant("edge_session", folder, *words)),
            Contestant(theirs, (str(loop), str(folder / "model.gguf"), *map(str, words))),
        ]
        claims.append(Claim("decode_tokens_per_s", ours, theirs, at_least=0.97, says=f"decode, {quantization}"))
        claims.append(
            Claim("prefill_tokens_per_s", ours, theirs, at_least=0.97, says=f"prefill of 512, {quantization}")
        )
    done = race.run(__doc__, contestants, rounds=args.rounds)
    return race.keep("decode_gguf", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
