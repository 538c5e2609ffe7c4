"""What does a grammar cost a token?

Held-out requests to a model that acts, with several tools each, answered under the grammar of their tools. A token's
time is that from one to the next; the grammar's part is what its mask took of it beyond what drawing a token takes
without one, so that both are of the very same answers. "Greedy" is how `edge act` answers; "drawn" is by chance, at a
temperature of 0.8; "closing" has so few tokens left that each has to leave a way to an end.

    python -m benchmarks.grammar out/smollm2-act-gguf-q4_k_m out/smollm2-act-onnx-int4-mixed
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import race
from benchmarks.race import Claim
from edge.runtimes.grammar import Grammars
from edge.runtimes.model import Model, open_bundle
from edge.runtimes.session import Mask, Sampling, pick
from edge.runtimes.tool_calls import syntax_of

CASES = Path(__file__).parents[1] / "edge" / "export" / "corpus" / "tool_calls.jsonl"
_MOST = 0.05  # of a token
_WAYS = {
    "greedy": Sampling(temperature=0, max_tokens=512),
    "drawn": Sampling(temperature=0.8, top_k=40, top_p=0.95, max_tokens=512, seed=11),
    "closing": Sampling(temperature=0, max_tokens=96),
}


def main() -> int:
    parser = race.arguments(__doc__, rounds=16)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    args = parser.parse_args()
    load = race.settled()
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()][: args.rounds]
    about: dict[str, str] = {}
    samples: dict[str, list[dict[str, float]]] = {}
    claims = []
    for folder in args.bundles:
        with open_bundle(folder, threads=args.threads) as model:
            kind = f"{model.bundle.format} {model.bundle.quantization}"
            engine = Grammars.of(model)
            syntax = syntax_of(model.template.source if model.template else "") or "tags"
            for way, sampling in _WAYS.items():
                name = f"{kind}, {way}"
                about[name] = model.bundle.id
                samples[name] = [_cost(model, row, engine, syntax, sampling) for row in rows]
                claims.append(Claim("of_a_token", name, "allowed", at_most=1.0, says=name, fixed=_MOST))
    done = race.Race(__doc__, about, samples, load)
    return race.keep("grammar", done, race.judge(done, claims), words=["BUNDLE", "..."])


def _cost(model: Model, row: Any, engine: Grammars, syntax: Any, sampling: Sampling) -> dict[str, float]:
    """The share of the grammar, and both times in ms, over all tokens of one answer but the first."""
    grammar = engine.tools([tool["function"] for tool in row["tools"]], syntax)
    model.session.rewind(0)
    model.hold([])
    mask = _Timed(grammar.mask(sampling), sampling)
    told = [
        p for p in model.generate(row["messages"], sampling, mask=mask, tools=row["tools"]) if p.token_id is not None
    ]
    total_ms = sum(b.time_ns - a.time_ns for a, b in itertools.pairwise(told)) / 1e6
    # A token's time is taken before its own mask: the last mask is in no gap.
    masks_ms, plain_ms = (sum(took[: len(told) - 1]) / 1e6 for took in (mask.took_ns, mask.plain_ns))
    token_ms = (total_ms - masks_ms) / (len(told) - 1)  # as it were without a grammar
    mask_ms = (masks_ms - plain_ms) / (len(told) - 1)
    return {"of_a_token": mask_ms / token_ms, "tokens": float(len(told)), "mask_ms": mask_ms, "token_ms": token_ms}


class _Timed:
    """A mask, how long each call of it took, and how long the same logits take to be drawn from without it."""

    def __init__(self, mask: Mask, sampling: Sampling) -> None:
        self._mask, self._sampling = mask, sampling
        self._rng = np.random.default_rng(0)
        self.took_ns: list[int] = []
        self.plain_ns: list[int] = []

    def __call__(self, logits: Any, out: Sequence[int]) -> Any:
        began = time.perf_counter_ns()
        try:
            return self._mask(logits, out)
        finally:
            masked = time.perf_counter_ns()
            pick(logits, self._sampling, out, self._rng)
            self.took_ns.append(masked - began)
            self.plain_ns.append(time.perf_counter_ns() - masked)


if __name__ == "__main__":
    sys.exit(main())
