"""`edge export` within a budget: its options, what predicts speed and memory, and what is shown of a plan."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.export.pipeline import Maker
    from edge.export.planner.run import Expect, Plan

AUTO = "auto"
_DEPTH = 128  # tokens before the answer that is predicted, as in edge predict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("budget", "instead of --quant: the plan that errs least of those that fit")
    group.add_argument("--max-size", metavar="SIZE", help="bytes of the bundle, such as 90MB")
    group.add_argument("--max-memory", metavar="SIZE", help="memory that it runs in, its context included")
    group.add_argument(
        "--min-tokens-per-second", type=float, metavar="N", help="how fast it must be expected to answer"
    )
    group.add_argument("--min-agreement", metavar="SHARE", help="top tokens that stay as the source has them: 0.97")
    group.add_argument(
        "--device", metavar="NAME", help="what it must run on: pi4, a TOML file, this (see edge predict)"
    )
    group.add_argument("--plot", type=Path, metavar="FILE", help="write the front as a page with a plot and a table")


def asked(args: argparse.Namespace) -> bool:
    """Whether there is a budget; refuses what cannot go with one, or not without."""
    options = {
        "--max-size": args.max_size, "--max-memory": args.max_memory, "--min-agreement": args.min_agreement,
        "--min-tokens-per-second": args.min_tokens_per_second, "--device": args.device,
    }  # fmt: skip
    if args.plot is not None and not args.plot.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {args.plot.absolute().parent}", hint="make it first")
    given = [name for name, value in options.items() if value is not None]
    if not given:
        for name, value in (("--format auto", args.format == AUTO), ("--plot", args.plot is not None)):
            if value:
                raise UsageError(f"{name} is for a budget", hint="give one, such as --max-size 90MB or --device pi4")
        return False
    if args.quant is not None:
        raise UsageError(
            f"{given[0]} chooses the quantization, and --quant {args.quant} names one", hint="leave out one of them"
        )
    if args.or_better:
        raise UsageError("--or-better cannot go with a budget", hint="leave out --or-better")
    return True


def maker(args: argparse.Namespace, plans: list[Plan]) -> Maker:
    """What makes the bundles; every plan that held is put into `plans`."""
    from edge.export.planner.budget import Budget, share, size
    from edge.export.within import within

    budget = Budget(
        max_size_bytes=None if args.max_size is None else size(args.max_size),
        max_memory_bytes=None if args.max_memory is None else size(args.max_memory),
        min_tokens_per_s=args.min_tokens_per_second,
        min_agreement=None if args.min_agreement is None else share(args.min_agreement),
    )
    budget.check()
    return within(
        budget, _expect(args, budget.min_tokens_per_s), across=args.format == AUTO, dry_run=args.dry_run,
        show=plans.append,
    )  # fmt: skip


def _expect(args: argparse.Namespace, min_tokens_per_s: float | None) -> Expect:
    """Of the named device; of this machine only when it is asked about, for measuring it is not the same every time."""
    from edge.commands.predict import HERE, measured
    from edge.devices import profiles
    from edge.devices.predict import expected

    device = None if args.device in {None, HERE} else profiles.read(args.device)
    here: dict[str, Any] = {}
    if device is None and (args.device == HERE or min_tokens_per_s is not None):
        here, _ = measured(None)

    def expect(bundle: Any, read: Any) -> Any:
        length = bundle.context_length
        return expected(bundle, read, device, context_length=length, depth=min(_DEPTH, length - 1), **here)

    return expect


def show(args: argparse.Namespace, plans: list[Plan]) -> None:
    """The plans, as the other options ask: a page, a table on a terminal, or JSON of a dry run or of what cannot be."""
    from edge.export.planner import say

    if args.plot is not None and plans:
        from edge.report import plan_page

        args.plot.write_text(plan_page.page([plan.record() for plan in plans]), encoding="utf-8")
    if args.json:
        if plans and (args.dry_run or not all(plan.fits for plan in plans)):
            print(json.dumps({"plans": [plan.record() for plan in plans]}, indent=2))
        return
    if args.dry_run or sys.stdout.isatty():
        for plan in plans:
            print(say.table(plan))
            if plan.fits:  # else the error says it
                print(" ".join(plan.sentences))
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        print(f"edge: {note}", file=sys.stderr)
