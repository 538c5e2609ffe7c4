"""docs/reference/performance.md and quality.md from the raw results: `python -m benchmarks.table`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import act_kept, act_suite, quality_size_page
from benchmarks.race import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "performance.md"
_HEAD = """# Performance

Generated from the raw results in [benchmarks/results](../../benchmarks/results). The contestants of a
run take turns in fresh processes: a row has the median of the ratios of all turns, in brackets the smallest and the
largest, and beside it the medians of both. Absolute figures belong to the machine they were taken on. To measure yours:
`python -m benchmarks.NAME` on a machine that does nothing else.
"""
_ACTING = """
## How often does `smollm2-act` bring about what was asked?

Requests of one to three steps, to 17 and more tools at once, judged by the state they end in: all 230 of `test` in
every format, at 4 bits, and all 100 of `fresh`. The program was mended by failures of one half of
`test`, in general; those of the other half were not read until it was done. Both halves share their wordings. `fresh`
has other tools and other words, written while the program was mended and not run until it was done: it says how far
that carries. The aim is 80 % of two steps in each format. It is reached on `test` in all three, and missed on `fresh`
in each that was tried. Since these counts the program was changed for two failures of `fresh` (nine tasks with "we need
12 pens, order them", seven that lost the day of a time), so that those are unseen no more. `fresh` in TFLite was run
after that. All tasks of two steps of `test` were run once more in each format: as many are done, and the same.
"""

_KEPT = """
## What do 4 bits keep of what `smollm2-act` answers rightly?

Held-out requests in words that training never saw: 120 to tools that it learned (`known`), 120 to tools that it never
saw (`unseen`). Right means the same tools with exactly the same arguments, as on its card. All answer greedily: the
source in torch and float32, each bundle on its own runtime, once freely and once under the grammar of the tools that
are shown. Wanted is no more than 2 points less than the source. Over all 240 that holds in each format; of `unseen`
alone ONNX loses three requests, which are 2.5 points.
"""


def page(records: dict[str, dict[str, Any]]) -> str:
    """The page for results by name."""
    parts = [_HEAD]
    for name, record in sorted(records.items()):
        machine = record["machine"]
        heading, *more = record["question"].strip().split("\n\n")
        parts.append(f"\n## {heading}\n\n")
        parts += [f"{words}\n\n" for words in more if not words.startswith(" ")]  # what is indented are commands
        parts.append("| | ours | theirs | ratio | wanted | |\n| --- | --- | --- | --- | --- | --- |\n")
        for claim in record["claims"]:
            bound = f"≥ {claim['at_least']:g}" if claim["at_least"] is not None else f"≤ {claim['at_most']:g}"
            parts.append(
                f"| {claim['says']} | {_plain(claim['quantity'], claim['median_ours'])} | "
                f"{_plain(claim['quantity'], claim['median_theirs'])} ({claim['theirs']}) | "
                f"{claim['ratio']:.2f} ({claim['ratio_low']:.2f} to {claim['ratio_high']:.2f}) | {bound} | "
                f"{'met' if claim['met'] else '**not met**'} |\n"
            )
        versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        busy = " The machine was busy." if record["busy"] else ""
        before = [
            f"{name} ({about[9:19]})" for name, about in record["contestants"].items() if about[:9] == "taken at "
        ]
        busy += f" Kept from before: {', '.join(before)}." if before else ""
        parts.append(
            f"\n`python -m benchmarks.{name}`, {record['taken_at'][:10]}, {machine['physical_cores']} cores of "
            f"{machine['cpu']}.{busy} {versions}.\n"
        )
    return "".join([*parts, _acting(), _kept()])


def _acting() -> str:
    kept = [json.loads(line) for path in sorted(RESULTS.glob("act_suite_*.jsonl")) for line in path.open()]
    return f"{_ACTING}\n{act_suite.table(kept)}\n`python -m benchmarks.act_suite BUNDLE -o FILE`\n"


def _kept() -> str:
    return f"{_KEPT}\n{act_kept.table(act_kept.kept())}\n`python -m benchmarks.act_kept [BUNDLE]`\n"


def records() -> dict[str, dict[str, Any]]:
    """All results that are kept."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def _plain(quantity: str, value: float) -> str:
    if quantity.endswith("tokens_per_s"):
        return f"{value:.1f} tok/s"
    if quantity.endswith("_bytes"):
        return f"{value / 1e6:.0f} MB"
    if quantity.endswith("_ms"):
        return f"{value:.1f} ms"
    if quantity.endswith("_s"):
        return f"{value:.1f} s"
    return f"{value:.4g}"


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page(records()), encoding="utf-8")
    quality_size_page.write()
    print(PAGE, quality_size_page.PAGE, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
