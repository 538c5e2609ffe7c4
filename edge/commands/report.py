"""Make one self-contained page of runs, or compare two of them.

The page needs no network and no server, and holds every raw sample. Runs from different
machines or with different settings stand in sections of their own, and are never ranked.

examples:
  edge report run.json -o report.html
  edge report before.json after.json -o report.html
  edge report diff before.json after.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge import measurement
from edge.commands._whole import write_whole
from edge.errors import UsageError
from edge.measurement import Result, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN.json", nargs="+", help="what edge bench -o wrote; or: diff A.json B.json")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--json", action="store_true", help="with diff: print the ratios as JSON")
    parser.add_argument("--force", action="store_true", help="with diff: compare what is not comparable")


def run(args: argparse.Namespace) -> int:
    if args.runs[0] == "diff":
        return _diff(args)
    if args.json or args.force:
        raise UsageError("--json and --force go with diff", hint="edge report diff A.json B.json --json")
    from edge.report import render

    output = args.output or Path("report.html")
    write_whole(output, render([measurement.read(Path(name)) for name in args.runs]))
    print(output)
    return 0


def _diff(args: argparse.Namespace) -> int:
    if len(args.runs) != 3:
        raise UsageError("diff compares two runs", hint="edge report diff A.json B.json")
    if args.output:
        raise UsageError("diff prints a table; it has no page", hint="edge report A.json B.json -o FILE")
    first, second = (measurement.read(Path(name)) for name in args.runs[1:])
    rows = _ratios(first, second, force=args.force)
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        sure = "" if row["low"] <= 1 <= row["high"] else "  differs"
        print(
            f"{row['bundle']:<28} {row['name']:<14} {row['first']:>10.4g} -> {row['second']:>10.4g} {row['unit']:<6}"
            f"  x{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}){sure}"
        )
    return 0


def _ratios(first: Run, second: Run, *, force: bool) -> list[dict[str, Any]]:
    """Second over first for every measurement that both have of the same kind of bundle."""
    pairs = [(a, b) for a in first.results for b in second.results if a.label == b.label]
    if not pairs:
        raise UsageError(
            "the two runs have no bundle of the same format and quantization in common",
            hint=f"the first has {_labels(first)}, the second {_labels(second)}",
        )
    rows = []
    for a, b in pairs:
        if first.group_of(a) != second.group_of(b):
            words = f"the runs of {a.label} cannot be compared: {_difference(first, a, second, b)}"
            if not force:
                raise UsageError(words, hint="measure both on one machine with the same settings, or pass --force")
            print(f"edge: {words}", file=sys.stderr)
        for name, taken in a.measurements.items():
            other = b.measurements.get(name)
            if other is not None and other.unit == taken.unit:
                found, low, high = measurement.ratio(taken, other)
                rows.append(
                    {
                        "bundle": a.label,
                        "name": name,
                        "unit": taken.unit,
                        "first": taken.median,
                        "second": other.median,
                        "ratio": found,
                        "low": low,
                        "high": high,
                    }
                )
    return rows


def _labels(run: Run) -> str:
    return ", ".join(r.label for r in run.results) or "none"


def _difference(first: Run, a: Result, second: Run, b: Result) -> str:
    """Which facts are not the same."""
    there = [(k, first.device.get(k), second.device.get(k)) for k in sorted({*first.device, *second.device})]
    there += [(k, a.settings.get(k), b.settings.get(k)) for k in sorted({*a.settings, *b.settings})]
    there.append(("emulated", a.emulated, b.emulated))
    return "; ".join(f"{k} {x} and {y}" for k, x, y in there if x != y)[:300]
