"""docs/reference/quality.md and its plots, from what `benchmarks.quality_size` has measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from edge.report.axes import Axis, Point, about, points

RESULTS = Path(__file__).parent / "results" / "quality_size"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "quality.md"
_WANTED = 0.5  # of the plain one's divergence
_HEAD = """# Quality for size

Generated from [raw results](../../benchmarks/results/quality_size), one file for each point, by `python -m
benchmarks.table`. Every bundle was run on the runtime that ships it, over the same text: the conversations that the
[gate](../guides/gate.md) judges by, 2,000 positions and a few, which nothing was calibrated with. KLD is the
divergence of the next token from what the source expects, in nats, with 95 % of resampled means in brackets; "same
top" the share of positions whose most likely token stays.

Sizes are of all files of a bundle. *Plain* is what the format's own tool does when it is told nothing, *field* is its
best, and *edge* ours. Plans were given the size of the plain bundle as their budget (`edge export --max-size`). They
were built without the gate, so that what would not pass it is shown too: for a model of this size it asks of 4 bits a
mean KLD of 0.099 at most.

What to keep in mind: the weights of `smollm2` come from a file of Q4_1 blocks, so a type on that grid (Q4_1, and in
part Q5_1 and blocks of 32 with a zero point) stores them almost as they are. A GGUF plan finds that out and uses it,
which says nothing of other models: a plan without these types is the one to go by. Importance matrices are the mean
squares of what each column is multiplied with, as llama.cpp's own tool computes them, over edge's calibration text;
llama.cpp's quantizer is its own. ONNX and TFLite rivals have edge's graphs, with one table for embedding and head in
ONNX, so that only the rounding differs. `smollm2-vision` was asked about text alone, which its words come from. All are
small, of 135 million parameters, the mixture of 373: larger ones lose less everywhere.

The mixture's experts were trained on from that grid, and Q4_1 rounds away what they learned: small errors, but all in
one direction. A plan that took them to be independent erred by 0.042 nats where 0.0017 were expected. [Such types are
tried](../decisions/030-plans-for-a-budget.md) on the source since, and left alone. All plans in GGUF were made so, but
the two without types of `smollm2` and of the mixture.

AutoRound 0.16.1 tuned for the 50 iterations of its recipe "light", over the same calibration text (16 samples of 512
tokens): its scales, zero points and steps were put into the plain bundle's graph, whose head it leaves alone. Not
measured: its default of 200 iterations, GPTQ of onnxruntime's and of ai-edge-quantizer's own, and llama.cpp's `q4_1`,
which the grid would flatter as it does the plan. ai-edge-quantizer's MSE has no blocks of 32. The mixture in ONNX
was not run with int4-gptq-32, and AutoRound only with `smollm2`.
"""


def rows() -> list[dict[str, Any]]:
    """All points that are kept."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/*.json"))]


def page(kept: Sequence[Mapping[str, Any]]) -> str:
    """The page: for each source and format a plot and a table, smallest first."""
    parts = [_HEAD]
    for (source, format_name), group in _groups(kept):
        plain = next((r for r in group if r["whose"] == "plain"), None)
        parts.append(
            f"\n## `{source}` in {format_name}\n\n![size against divergence]({_plot_name(source, format_name)})\n"
        )
        if plain:
            parts.append(f"\n{_verdict(plain, group)}\n")
        parts.append(
            "\n| | | MB | mean KLD | same top | of the plain one's KLD |\n| --- | --- | --- | --- | --- | --- |\n"
        )
        parts += [_line(row, plain) for row in group]
    return "".join(parts)


def plots(kept: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The pictures of the page by file name: whole SVGs."""
    return {_plot_name(*key): _plot(group, " in ".join(key)) for key, group in _groups(kept)}


def write() -> None:
    """The page and its plots."""
    kept = rows()
    PAGE.write_text(page(kept), encoding="utf-8")
    for name, text in plots(kept).items():
        (PAGE.parent / name).write_text(text, encoding="utf-8")


def _groups(kept: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, str], list[Mapping[str, Any]]]]:
    ordered = sorted(kept, key=lambda r: (r["source"], r["format"], r["size_bytes"], r["name"]))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda r: (r["source"], r["format"]))]


def _plot_name(source: str, format_name: str) -> str:
    return f"quality-{source}-{format_name}.svg"


def _verdict(plain: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> str:
    """Whether the plan does what was wanted of it, and whether a rival of its size does better."""
    plan = next((r for r in group if r["name"] == "edge plan"), None)
    if plan is None:
        return "No plan was built yet."
    kld = plan["found"]["mean_kld"]
    ratio = kld / plain["found"]["mean_kld"]
    said = (
        f"Wanted of a plan no larger than {plain['name']}: at most {_WANTED:g} of its divergence. It has {ratio:.2f}: "
        f"{'met' if ratio <= _WANTED else '**not met**'}."
    )
    rivals = [r for r in group if r["whose"] == "field" and r["size_bytes"] <= plain["size_bytes"]]
    if rivals:
        best = min(rivals, key=lambda r: float(r["found"]["mean_kld"]))
        says = "more" if best["found"]["mean_kld"] > kld else "**less**"
        said += f" The best rival that is no larger, {best['name']}, has {says}: {best['found']['mean_kld']:.4f}."
    expected = plan.get("expected", {}).get("mean_kld")
    if expected:
        said += f" The plan's was expected to be {expected:.4f}, and is {kld:.4f}."
    return said


def _line(row: Mapping[str, Any], plain: Mapping[str, Any] | None) -> str:
    found = row["found"]
    of_plain = f"{found['mean_kld'] / plain['found']['mean_kld']:.2f}" if plain else ""
    return (
        f"| {row['name']} | {row['whose']} | {row['size_bytes'] / 1e6:.1f} | {found['mean_kld']:.4f} "
        f"({found['kld_low']:.4f} to {found['kld_high']:.4f}) | {found['same_top1']:.1%} | {of_plain} |\n"
    )


def _plot(group: Sequence[Mapping[str, Any]], title: str) -> str:
    """Size against divergence on a scale of powers of ten, with a look of its own: nothing is around it."""
    at = [(r["size_bytes"] / 1e6, math.log10(max(1e-6, r["found"]["mean_kld"]))) for r in group]
    drawn = points(
        [
            Point(r["name"], r["whose"], x, y, f"{r['name']}: {x:.1f} MB, {10**y:.4f} nats")
            for r, (x, y) in zip(group, at, strict=True)
        ],
        Axis("megabytes of the bundle", *about([x for x, _ in at])),
        Axis("mean KLD in nats", *about([y for _, y in at]), powers=True),
        f"size against divergence, {title}",
    )
    return (
        str(drawn).replace(">", ">" + _LOOK, 1).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
    )


_LOOK = """<style>
svg { font: 13px system-ui, sans-serif; background: #fff } text { fill: #1d2127 }
text.tick { fill: #626b76; font-size: 12px }
text.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px } line { stroke: #e4e1da }
.plain { fill: #b3372f } .field { fill: #3a5a9b } .edge { fill: #2f7d4f }
</style>"""
