"""Make one self-contained page of runs, or compare two of them.

The page needs no network and no server, and holds every raw sample. Runs from different
machines or with different settings stand in sections of their own, which say what differs, and
are never ranked; so do runs of edge bench --act, which have stages instead of speeds. --format
markdown or csv gives the same as text.

diff compares two runs, with an interval for each ratio. With --fail-if it is a gate for CI: it
exits with 3 when a ratio of the second run to the first came to what must not be. Names are those
of the run's measurements; .p99 takes a percentile instead of the median.

examples:
  edge report run.json -o report.html
  edge report before.json after.json -o report.html
  edge report run.json --format markdown
  edge report diff before.json after.json
  edge report diff before.json after.json --fail-if "decode<0.95, peak_rss>1.1, inter_token.p99>1.3"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import measurement
from edge.commands._whole import write_whole
from edge.errors import GateError, UsageError
from edge.measurement import Measurement, Result, Run

if TYPE_CHECKING:
    from edge.report import limits

_FORMATS = ("html", "markdown", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN.json", nargs="+", help="what edge bench -o wrote; or: diff A.json B.json")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--format", choices=_FORMATS, default="html", help="markdown and csv are printed without -o")
    parser.add_argument("--json", action="store_true", help="with diff: print the ratios as JSON")
    parser.add_argument("--force", action="store_true", help="with diff: compare what is not comparable")
    parser.add_argument(
        "--fail-if", metavar="CONDITIONS", action="append", help="with diff: exit 3 if one holds, as decode<0.95"
    )


def run(args: argparse.Namespace) -> int:
    if args.runs[0] == "diff":
        return _diff(args)
    if args.json or args.force or args.fail_if:
        raise UsageError("--json, --force and --fail-if go with diff", hint="edge report diff A.json B.json --json")
    runs = [measurement.read(Path(name)) for name in args.runs]
    if args.format != "html":
        from edge.report import tables

        text = tables.markdown(runs) if args.format == "markdown" else tables.comma_separated(runs)
        if args.output is None:
            print(text, end="")
            return 0
    else:
        from edge.report import render

        text = render(runs)
    output = args.output or Path("report.html")
    write_whole(output, text)
    print(output)
    return 0


def _diff(args: argparse.Namespace) -> int:
    if len(args.runs) != 3:
        raise UsageError("diff compares two runs", hint="edge report diff A.json B.json")
    if args.output or args.format != "html":
        raise UsageError("diff prints a table; it has no page", hint="edge report A.json B.json -o FILE")
    from edge.report import limits

    wanted = [limit for text in args.fail_if or () for limit in limits.parse(text)]
    first, second = (measurement.read(Path(name)) for name in args.runs[1:])
    pairs = _pairs(first, second, force=args.force)
    rows = [_row(a, b, name) for a, b in pairs for name in a.measurements if _same(a, b, name)]
    counted = [(a, b, name) for a, b in pairs for name in ("decode", "act_request") if _same(a, b, name)]
    if any(not _sure(a.measurements[name], b.measurements[name]) for a, b, name in counted):
        print(f"edge: fewer than {measurement.FEWEST} repetitions: what differs cannot be told", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        several = len({a.bundle.get("name") for a, _ in pairs}) > 1
        for row in rows:
            scale, unit = (1e-6, "MB") if row["unit"] == "bytes" else (1.0, row["unit"])
            values = f"{row['first'] * scale:>10.4g} -> {row['second'] * scale:>10.4g} {unit:<6}"
            bounds = f"x{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            bundle = f"{row['model']} {row['bundle']}" if several else row["bundle"]
            print(f"{bundle:<28} {row['name']:<18} {values}  {bounds}{'  differs' if row['differs'] else ''}")
    failed = [said for limit in wanted for said in _held(limit, pairs)]
    if failed:
        raise GateError(
            f"{len(failed)} of what must not be came to be: {'; '.join(failed)}",
            hint="measure both again on an idle machine if that is a surprise",
        )
    return 0


def _pairs(first: Run, second: Run, *, force: bool) -> list[tuple[Result, Result]]:
    """Results of both runs that are of the same bundle, or else of the same kind of one.

    Raises `UsageError` unless they may be compared.
    """
    alike = [(a, b) for a in first.results for b in second.results if a.label == b.label]
    pairs = [(a, b) for a, b in alike if a.bundle.get("name") == b.bundle.get("name")] or alike
    if not pairs:
        raise UsageError(
            "the two runs have no bundle of the same format and quantization in common",
            hint=f"the first has {_labels(first)}, the second {_labels(second)}",
        )
    for a, b in pairs:
        reasons = []
        if first.group_of(a) != second.group_of(b):
            reasons.append(first.difference(a, second, b))
        if a.bundle.get("name") != b.bundle.get("name"):
            reasons.append(f"models {a.bundle.get('name')} and {b.bundle.get('name')}")
        if reasons:
            words = f"the runs of {a.label} cannot be compared: {'; '.join(reasons)}"
            if not force:
                raise UsageError(words, hint="measure both on one machine with the same settings, or pass --force")
            print(f"edge: {words}", file=sys.stderr)
        for run, result, which in ((first, a, "first"), (second, b, "second")):
            if not run.complete or result.fitness.get("forced"):
                why = "was cut short" if not run.complete else "was taken on an unfit machine"
                print(f"edge: the {which} run of {result.label} {why}", file=sys.stderr)
    return pairs


def _same(a: Result, b: Result, name: str) -> bool:
    return name in a.measurements and name in b.measurements and a.measurements[name].unit == b.measurements[name].unit


def _row(a: Result, b: Result, name: str) -> dict[str, Any]:
    """Second over first."""
    taken, other = a.measurements[name], b.measurements[name]
    found, low, high = measurement.ratio(taken, other)
    return {
        "bundle": a.label, "model": a.bundle.get("name"), "name": name, "unit": taken.unit,
        "first": taken.median, "second": other.median,
        "ratio": found, "low": low, "high": high, "differs": _sure(taken, other) and not low <= 1 <= high,
    }  # fmt: skip


def _sure(taken: Measurement, other: Measurement) -> bool:
    """Whether both were repeated often enough to tell a difference from chance."""
    return min(taken.n_repetitions, other.n_repetitions) >= measurement.FEWEST


def _held(limit: limits.Limit, pairs: list[tuple[Result, Result]]) -> list[str]:
    """Where a condition holds, in words. Raises `UsageError` for what nobody measured: a typo passes no gate."""
    from edge.report.limits import ratio

    there = [(a, b) for a, b in pairs if limit.name in a.measurements and _same(a, b, limit.name)]
    if not there:
        both = sorted(set(pairs[0][0].measurements) & set(pairs[0][1].measurements))
        raise UsageError(f"neither run measured {limit.name!r}", hint=f"both have {', '.join(both)}")
    said = []
    for a, b in there:
        found, low, high = ratio(a.measurements[limit.name], b.measurements[limit.name], limit.percentile)
        if limit.met(found):
            one, other = a.measurements[limit.name], b.measurements[limit.name]
            sure = "" if limit.met(high if limit.below else low) else ", within the noise"
            if not _sure(one, other):
                sure = f", from fewer than {measurement.FEWEST} repetitions"
            elif one.tail(limit.percentile) is None or other.tail(limit.percentile) is None:
                sure = f", from too few samples for p{limit.percentile:g}"
            said.append(f"{limit.text} for {a.label}: {found:.3f} ({low:.3f} to {high:.3f}{sure})")
    return said


def _labels(run: Run) -> str:
    return ", ".join(r.label for r in run.results) or "none"
