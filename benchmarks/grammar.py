"""What a grammar costs a token: answers of one bundle, drawn alone and under a mask, in turn.

python -m benchmarks.grammar out/smollm2-act-gguf-q4_k_m -o benchmarks/results/grammar.json

The same requests, the same tokens: where the grammar changes an answer, that answer is left out. Under
"masked" every token's mask is made, as when answers are drawn by chance; under "greedy" only where the
likeliest token is not allowed. Milliseconds a token, all raw; the table shows medians and their ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

from edge.runtimes.grammar import Grammar, Grammars
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Sampling
from edge.runtimes.tool_calls import syntax_of

CASES = Path(__file__).parents[1] / "edge" / "export" / "corpus" / "tool_calls.jsonl"
GREEDY = Sampling(max_tokens=96)
# Greedy too, but for a penalty that changes nothing: a mask cannot take its short cut then.
MASKED = Sampling(max_tokens=96, repeat_penalty=1.0000001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--cases", type=int, default=40)
    args = parser.parse_args()
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()][: args.cases]
    taken: dict[str, list[float]] = {"alone": [], "greedy": [], "masked": []}
    built: list[float] = []
    with open_bundle(args.bundle) as model:
        began = time.perf_counter()
        engine = Grammars.of(model)
        engine_s = time.perf_counter() - began
        assert model.template is not None
        syntax = syntax_of(model.template.source)
        assert syntax is not None, "the model's template shows no tools"
        for row in rows:
            began = time.perf_counter()
            grammar = engine.tools([t["function"] for t in row["tools"]], syntax)
            built.append(time.perf_counter() - began)
            _answer(model, row, GREEDY, None)  # reads the prompt
            answers = {
                "alone": _answer(model, row, MASKED, None),
                "greedy": _answer(model, row, GREEDY, grammar),
                "masked": _answer(model, row, MASKED, grammar),
            }
            if len({tuple(ids) for ids, _ in answers.values()}) == 1:
                for kind, (_, times) in answers.items():
                    taken[kind] += times
        record = {
            "bundle": model.bundle.name, "bundle_id": model.bundle.id, "engine_s": engine_s,
            "grammar_s": built, "token_ms": taken,
        }  # fmt: skip
    if args.output:
        args.output.write_text(json.dumps(record) + "\n", encoding="utf-8")
    alone = statistics.median(taken["alone"])
    print(f"engine {engine_s:.2f} s, a grammar {1000 * statistics.median(built):.1f} ms")
    for kind, times in taken.items():
        middle = statistics.median(times)
        print(f"{kind:8} {middle:7.3f} ms a token  x {middle / alone:.3f}  ({len(times)} tokens)")


def _answer(model: Model, row: Any, sampling: Sampling, grammar: Grammar | None) -> tuple[list[int], list[float]]:
    """Its ids, and the time of each after the first, in ms."""
    mask = None if grammar is None else grammar.mask(sampling)
    pieces = list(model.generate(row["messages"], sampling, mask=mask, tools=row["tools"]))
    told = [p for p in pieces if p.token_id is not None]
    times = [(b.time_ns - a.time_ns) / 1e6 for a, b in itertools.pairwise(told)]
    return [p.token_id for p in told if p.token_id is not None], times


if __name__ == "__main__":
    main()
