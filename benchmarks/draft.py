"""Does a smaller model that guesses ahead make a bundle answer faster, and are the answers the same?

Each pair answers the tasks of `benchmarks.lookup` in one process, greedily and in turns: with guesses of the smaller
model beside those from the conversation, with the latter alone, and one by one. Whether the smaller one pays is tried
before, as `edge chat --draft` does; where it does not, it guesses nothing. Nothing is much smaller than SmolLM2-135M:
here its 4 bits guess for its 8 bits.

    python -m benchmarks.draft
    python -m benchmarks.draft BUNDLE SMALLER_BUNDLE
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import lookup, race
from benchmarks.race import Claim
from edge.runtimes.drafting import guess_for
from edge.runtimes.model import open_bundle

_LARGER = (("gguf", "q8_0", "8bit"), ("onnx", "int8", "8bit"), ("tflite", "int8", None))
_SMALLER = ("gguf", "q4_0")
_LEAST = 0.97


def main() -> int:
    parser = race.arguments(__doc__, rounds=1)
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="one, and one that guesses for it")
    args = parser.parse_args()
    if len(args.bundles) not in (0, 2):
        parser.error("give two bundles, or none")
    pairs = [tuple(args.bundles)] if args.bundles else _pairs()
    done = race.Race(__doc__, load_before=race.settled())
    claims = []
    for larger, smaller in pairs:
        with (
            open_bundle(larger, threads=args.threads) as drafted,
            open_bundle(larger, threads=args.threads) as alone,
        ):
            said = guess_for(drafted, smaller)
            print(said, flush=True)
            ways = {"drafting": (drafted, True), "from the conversation": (alone, True), "one by one": (alone, False)}
            for task, questions in lookup.TASKS.items():
                kind = f"{task}, {drafted.bundle.format} {drafted.bundle.quantization}"
                for turn, question in enumerate(questions * args.rounds):
                    names = list(ways)[turn % 3 :] + list(ways)[: turn % 3]
                    samples = lookup.in_turns({name: ways[name] for name in names}, question, args.tokens)
                    for name, sample in samples.items():
                        done.contestants[f"{name}: {kind}"] = said if name == "drafting" else alone.bundle.id
                        done.samples.setdefault(f"{name}: {kind}", []).append(sample)
                    print(f"  {kind}: { ({n: round(s['tokens_per_s'], 1) for n, s in samples.items()}) }", flush=True)
                claims += [
                    Claim(
                        "tokens_per_s", f"drafting: {kind}", f"one by one: {kind}", at_least=_LEAST, says=kind
                    ),
                    Claim("same", f"drafting: {kind}", "all", at_least=1.0, says=f"same tokens, {kind}", fixed=1.0),
                ]  # fmt: skip
    return race.keep("draft", done, race.judge(done, claims), words=["BUNDLE", "SMALLER"] if args.bundles else None)


def _pairs() -> list[tuple[Path, Path]]:
    smaller = race.bundle("smollm2", *_SMALLER)
    return [(race.bundle("smollm2", kind, quantization, kv=kv), smaller) for kind, quantization, kv in _LARGER]


if __name__ == "__main__":
    sys.exit(main())
