"""Does guessing from the conversation make bundles answer faster, and are the answers the same?

The same bundle answers every task twice in one process, with guesses and without, in turns and greedily: summaries of
a text, a text with something changed, and free questions, where there is little to guess. Times are those between
tokens, the first left out. "Same" is the share of tokens that are the same in both answers, in order. Before, other
questions are answered until the ways to look ahead were tried on this machine. GGUF and ONNX bundles hold keys and
values in 8 bits (`edge export --kv 8bit`), TFLite bundles in float32.

    python -m benchmarks.lookup
    python -m benchmarks.lookup out/SmolLM2-135M-Instruct-tflite-int8
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling

TEXTS = (
    "The harbour of Lunden was built in 1884 for the herring boats. Forty boats lay there in a good year, and every "
    "family in the town had somebody who mended nets or packed fish into barrels. When the herring left in 1921, most "
    "of the boats were sold. Today eleven boats go out for crab, the old packing hall is a museum, and in summer a "
    "ferry brings visitors from the islands twice a day.",
    "To plant a hedge, dig a trench that is forty centimetres deep and as wide as your spade. Loosen the soil at the "
    "bottom, mix in compost, and set the plants a foot apart. Fill the trench, press the soil down with your boot, and "
    "water it well. In the first winter, cut every plant back by a third. In the second spring, feed the hedge with "
    "bone meal, and keep the weeds away from its foot.",
    "Our meeting on Monday decided three things. The new server will be bought in March and not in May, because the "
    "old one has failed twice this year. Maria writes the plan for moving the data, and Tom checks it. Until the move "
    "is done, nobody installs anything on the old server without asking Maria first. The next meeting is on the "
    "twelfth, in the small room on the second floor.",
    "A kettle boils faster with its lid on, because steam carries heat away. A litre of water at twenty degrees needs "
    "about 335 kilojoules to reach a hundred. A stove of two kilowatts gives that in less than three minutes, if "
    "nothing is lost; on a gas flame, half of the heat goes past the pot. Water that boils hard is no hotter than "
    "water that boils gently, and only uses more fuel.",
)
FREE = (
    "Why is the sky blue?",
    "Write a short story about a lighthouse keeper.",
    "How do I learn to play chess?",
    "What should I think of before I buy a bicycle?",
)
TASKS = {
    "summaries": [f"Summarize this text in three sentences.\n\n{text}" for text in TEXTS],
    "changes": [f"Repeat this text word for word, with every 'the' written in capitals.\n\n{text}" for text in TEXTS],
    "free answers": list(FREE),
}
BUNDLES = {
    "gguf": ("q4_k_m", "q4_0", "q8_0"),
    "onnx": ("int4-mixed", "int8"),
    "tflite": ("int4-mixed", "int8"),
}
_BEFORE = (
    "Repeat this text word for word, with every 'a' written in capitals.\n\nA fox has a den, a bird has a nest, and a "
    "bee has a hive. A man needs a house, a door to close behind him, a stove for the winter, and a friend to talk to.",
    "Write the numbers from one to forty in words, and then once more.",
)
_TRIED = 5  # times each of these questions
_WANTED = {"summaries": 1.5, "changes": 1.5, "free answers": 0.97}


def main() -> int:
    parser = race.arguments(__doc__, rounds=2)
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="else those of smollm2")
    args = parser.parse_args()
    folders = args.bundles or [
        race.bundle("smollm2", kind, quantization, kv=None if kind == "tflite" else "8bit")
        for kind, quantizations in BUNDLES.items()
        for quantization in quantizations
    ]
    done = race.Race(__doc__, load_before=race.settled())
    claims = []
    for folder in folders:
        with open_bundle(folder, threads=args.threads) as model:
            for question in _BEFORE * _TRIED:
                _both(model, question, args.tokens, first=True)
            for task, questions in TASKS.items():
                kind = f"{task}, {model.bundle.format} {model.bundle.quantization}"
                ours, theirs = f"guessing: {kind}", f"one by one: {kind}"
                done.contestants |= {ours: model.bundle.id, theirs: model.bundle.id}
                for turn, question in enumerate(questions * args.rounds):
                    samples = _both(model, question, args.tokens, first=turn % 2 == 0)
                    for name, sample in zip((ours, theirs), samples, strict=True):
                        done.samples.setdefault(name, []).append(sample)
                    print(f"  {kind}: {samples[0]} {samples[1]['tokens_per_s']:.4g}", flush=True)
                claims += [
                    Claim("tokens_per_s", ours, theirs, at_least=_WANTED[task], says=kind),
                    Claim("same", ours, "all", at_least=1.0, says=f"same tokens, {kind}", fixed=1.0),
                ]
    return race.keep("lookup", done, race.judge(done, claims), words=["BUNDLE", "..."] if args.bundles else None)


def _both(model: Model, question: str, n_tokens: int, *, first: bool) -> tuple[dict[str, float], dict[str, float]]:
    """The sample with guesses, which is taken first or second, and the one without."""
    ways = {str(looks_up): (model, looks_up) for looks_up in (first, not first)}
    found = in_turns(ways, question, n_tokens)
    return found["True"], found["False"]


def in_turns(ways: Mapping[str, tuple[Model, bool]], question: str, n_tokens: int) -> dict[str, dict[str, float]]:
    """A sample of each way to answer: a model, and whether it guesses; "same" is held against the one that does not."""
    found: dict[str, dict[str, float]] = {}
    said: dict[str, list[int | None]] = {}
    for name, (model, looks_up) in ways.items():
        model.looks_up = looks_up
        model.session.rewind(0)
        model.hold([])
        told = [p for p in model.generate(question, Sampling(max_tokens=n_tokens)) if p.token_id is not None]
        said[name] = [p.token_id for p in told]
        stats = model.stats
        assert stats is not None
        found[name] = {
            "tokens_per_s": (len(told) - 1) / ((told[-1].time_ns - told[0].time_ns) / 1e9), "tokens": len(told),
            "prompt_tokens": stats.prompt_tokens, "guessed": stats.guessed_tokens, "accepted": stats.accepted_tokens,
        }  # fmt: skip
    [alone] = [said[name] for name, (_, looks_up) in ways.items() if not looks_up]
    for name, (_, looks_up) in ways.items():
        if looks_up:
            same = sum(a == b for a, b in zip(said[name], alone, strict=False))
            found[name]["same"] = same / max(len(said[name]), len(alone))
    return found


if __name__ == "__main__":
    sys.exit(main())
