"""Is an ONNX bundle of 4 bits answered as fast as onnxruntime-genai answers from its own builder's int4 file?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Contestant


def builders_file() -> Path:
    """int4 SmolLM2-135M as onnxruntime-genai's own builder makes it."""
    from edge.export import cache
    from edge.export.source import open_source

    folder = cache.root() / "benchmarks" / "genai-int4"
    if not (folder / "genai_config.json").is_file():
        source = open_source("smollm2").folder
        work = folder.with_name("genai-int4.part")
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(source), "-i", str(source)]
        command += ["-o", str(work), "-p", "int4", "-e", "cpu", "-c", str(work / "cache")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        work.rename(folder)
    return folder


def main() -> int:
    parser = race.arguments(__doc__)
    parser.add_argument("--quant", default="int4,int4-mixed", help="our quantizations (int4,int4-mixed)")
    args = parser.parse_args()
    words = (args.threads, 512, args.tokens)
    theirs = "onnxruntime-genai int4"
    contestants = [Contestant(theirs, race.contestant("genai", builders_file(), *words), "its own builder's file")]
    claims = []
    for quantization in args.quant.split(","):
        folder = race.bundle("smollm2", "onnx", quantization)
        ours, same_file = f"edge {quantization}", f"onnxruntime-genai on edge's {quantization}"
        contestants.append(Contestant(ours, race.contestant("edge_session", folder, *words)))
        contestants.append(Contestant(same_file, race.contestant("genai", folder, *words), "the same file"))
        claims.append(
            Claim("decode_tokens_per_s", ours, same_file, at_least=0.97, says=f"decode, {quantization}, same file")
        )
        if quantization == "int4":
            claims.append(
                Claim("decode_tokens_per_s", ours, theirs, at_least=1.0, says="decode, int4 against its builder's int4")
            )
    done = race.run(__doc__, contestants, rounds=args.rounds)
    return race.keep("decode_onnx", done, race.judge(done, claims))


if __name__ == "__main__":
    sys.exit(main())
