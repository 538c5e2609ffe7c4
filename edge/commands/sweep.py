"""Export models in many ways, and see which of them nothing beats.

SWEEP.toml has lists of models, formats, quantizations, devices and more: every combination becomes a cell, which is
exported and judged as edge export does, and predicted for each device as edge predict does. Instead of quantizations,
or beside them, budgets are planned for each device:

  models = ["smollm2", "./my-model"]     # paths are below the file's own folder
  formats = ["gguf", "onnx"]             # or "all"
  quantizations = ["8bit", "4bit"]
  devices = ["pi4", "pi5"]               # names, TOML files, or "this"
  distill = ["none", "half"]             # likewise: experts = ["none", 3], kv = ["none", "8bit"]
  context = 1024                         # for all, as are: exporter, calibration, held-out

  [[budget]]
  max-size = "90MB"                      # max-memory, min-tokens-per-second, min-agreement

Each cell is a line in results.jsonl below -o: size, divergence, verdict, predictions, and the command that makes its
bundle. A cell that fails does not stop the others. Run it again, and it does what has no line yet, and what failed.

It uses all cores of this machine, as memory allows, or the workers of a Dask cluster.

examples:
  edge sweep sweep.toml
  edge sweep sweep.toml --dry-run
  edge sweep sweep.toml -o results/ --jobs 2 --plot fronts.html
  edge sweep sweep.toml --cluster tcp://127.0.0.1:8786 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError

if TYPE_CHECKING:
    from edge.progress import Progress
    from edge.sweep.prepare import Task, Unfit
    from edge.sweep.recipe import Sweep
    from edge.sweep.results import Results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP.toml", type=Path, help="what is combined, as above")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("sweep"), help="where results.jsonl is (default: sweep)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at once (default: a core for each)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler, whose workers do it instead")
    parser.add_argument("--dry-run", action="store_true", help="show the cells, what they take, and which are done")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the fronts as a page with plots and a table")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    from edge.commands import _progress
    from edge.sweep import recipe
    from edge.sweep.prepare import prepare
    from edge.sweep.results import FILE, Results, lines

    if args.plot is not None and args.dry_run:
        raise UsageError("--plot is for what was measured", hint="leave out --dry-run")
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, found {args.jobs}")
    if args.jobs is not None and args.cluster is not None:
        raise UsageError("--jobs is for this machine", hint="a cluster runs one cell for each of its workers")
    sweep = recipe.read(args.sweep.expanduser())
    for words in sweep.left_out:
        print(f"edge: left out: {words}", file=sys.stderr)
    folder = args.output.expanduser()
    with _progress.shown(quiet=args.quiet) as progress:
        tasks = prepare(sweep.cells, progress)
    if args.dry_run:
        _dry(args, tasks, lines(folder / FILE))
        return 0
    with _progress.shown(quiet=args.quiet) as progress:
        results = Results(folder)
        try:
            _do(args, sweep, tasks, results, progress)
        except KeyboardInterrupt:
            print(f"edge: {_so_far(tasks, results)}; run it again to go on", file=sys.stderr)
            raise
        finally:
            results.close()
    return _show(args, sweep, [line for task in tasks if (line := results.get(task.key))], results.path)


def _do(
    args: argparse.Namespace, sweep: Sweep, tasks: Sequence[Task | Unfit], results: Results, progress: Progress
) -> None:
    from edge.sweep import run as runs
    from edge.sweep.cluster import Cluster
    from edge.sweep.local import Local
    from edge.sweep.prepare import Task

    here = _here(sweep)
    crew: runs.Crew
    if not any(isinstance(task, Task) and not results.done(task.key) for task in tasks):
        crew = Local(1)  # nothing to do: nobody is asked
    elif args.cluster is not None:
        progress.start(f"connecting to {args.cluster}")
        crew = Cluster(args.cluster, progress)
    else:
        crew = Local(args.jobs)
    runs.run(tasks, results, crew, sweep.devices, here, progress)


def _here(sweep: Sweep) -> dict[str, Any]:
    """This machine's memory, measured if a device is this machine, or a budget asks how fast it is."""
    fast = any("min-tokens-per-second" in dict(cell.bounds) and cell.device is None for cell in sweep.cells)
    if not fast and None not in sweep.devices.values():
        return {}
    from edge.commands.predict import measured

    return measured(None)[0]


def _so_far(tasks: Sequence[Task | Unfit], results: Results) -> str:
    return f"{sum(results.done(task.key) for task in tasks)} of {len(tasks)} cells are in {results.path}"


def _dry(args: argparse.Namespace, tasks: Sequence[Task | Unfit], done: Mapping[str, Mapping[str, Any]]) -> None:
    from edge.sweep.prepare import Unfit

    rows = []
    for task in tasks:
        state = done[task.key]["status"] if task.key in done else "to do"
        row: dict[str, Any] = {"command": task.cell.command, "state": state}
        if isinstance(task, Unfit):
            row |= {"state": "failed", "why": task.error.message}
        else:
            row |= {"ram_bytes": task.need.ram_bytes, "disk_bytes": task.need.disk_bytes, "time_s": task.need.time_s}
        rows.append(row)
    if args.json:
        print(json.dumps({"cells": rows}, indent=2))
        return
    for row in rows:
        needs = "" if "why" in row else (
            f"{row['ram_bytes'] / 1e9:5.1f} GB memory  {row['disk_bytes'] / 1e9:5.1f} GB disk  "
            f"{max(1, round(row['time_s'] / 60)):4} min"
        )  # fmt: skip
        print(f"{row['state']:<10}  {needs:<44}  {row['command']}{': ' + row['why'] if 'why' in row else ''}")
    print(
        f"edge: {len(rows)} cells; times are each one's own, on two cores with nothing in the cache; "
        "what cells share is done once",
        file=sys.stderr,
    )


def _show(args: argparse.Namespace, sweep: Sweep, lines: Sequence[Mapping[str, Any]], place: Path) -> int:
    from edge.sweep import front
    from edge.sweep.results import FAILED

    devices = list(sweep.devices)
    found = front.marked(lines, devices)
    if args.plot is not None:
        from edge.commands._whole import write_whole
        from edge.report import sweep_page

        write_whole(args.plot, sweep_page.page(found, devices))
    if args.json:
        print(json.dumps({"results": str(place), "cells": found}, indent=2))
    elif sys.stdout.isatty():
        print(f"\n{front.table(found, devices)}\n")
        print("* nothing of the same model that passed is both smaller, or faster there, and nearer to its source")
        print(f"the command of each stands in {place}")
    else:
        print(place)
    _note(found)
    failed = [line for line in found if line["status"] == FAILED]
    if failed:
        raise EdgeError(
            f"{len(failed)} of {len(found)} cells failed:\n  " + "\n  ".join(_reasons(failed)),
            hint="the others are done; run it again to try these",
        )
    return 0


def _reasons(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each reason once, with the cells that it is of."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for line in failed:
        by_reason.setdefault((line["model"], line["why"]), []).append(line["label"])
    return [
        f"{model} {labels[0] if len(labels) == 1 else f'({len(labels)} cells)'}: {why}"
        for (model, why), labels in by_reason.items()
    ]


def _note(lines: Sequence[Mapping[str, Any]]) -> None:
    """What the figures rest on, each said once."""
    notes = [n for line in lines for made in line["predictions"].values() for n in made["notes"]]
    if any("made_kld" in line for line in lines):
        notes.append(
            "about: of a student, or with fewer experts, its own divergence from its source was added to the export's; "
            "top tokens kept are those of what was made"
        )
    for note in dict.fromkeys(notes):
        print(f"edge: {note}", file=sys.stderr)
