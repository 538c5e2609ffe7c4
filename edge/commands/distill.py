"""Make a smaller student of a model, and let it learn from its teacher.

SOURCE is the teacher: what edge export takes. The student is a Hugging Face folder below -o, to be looked at, used, or
exported. How it is made stands in a recipe: a TOML file, or one of those that ship with edge (english-chat,
english-chat-small, half).
Without text of yours the teacher writes what is learned from. A run that was stopped goes on where it was.

How far the student is from its teacher on held-out text is measured and said, good or bad, and lies beside it in
distilled.json. To go on to a bundle at once: edge export SOURCE --distill RECIPE.

Started by accelerate launch -m edge distill ..., several processes share the training.

examples:
  edge distill smollm2 --recipe english-chat
  edge distill smollm2 --recipe half -o students/
  edge distill ./my-model --recipe recipe.toml --json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="the teacher: folder, hub id, .gguf file or built-in name")
    parser.add_argument("--recipe", required=True, metavar="R", help="a TOML file, or the name of one that ships")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="where the student goes (default: out)")
    parser.add_argument("--name", help="what its folder is called (default: teacher and recipe)")
    parser.add_argument("--replace", action="store_true", help="put the student in the place of an old one")
    parser.add_argument("--json", action="store_true", help="print the record instead of the folder")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    from edge.commands import _progress
    from edge.errors import UsageError
    from edge.export import publish
    from edge.export.distill import recipe as recipes
    from edge.export.distill.run import RECORD, distill
    from edge.export.source import open_source

    recipe = recipes.read(args.recipe)  # before anything is opened: it may be wrong
    with _progress.shown(quiet=args.quiet) as progress:
        progress.start(f"opening {args.source}")
        teacher = open_source(args.source, progress=progress)
        target = args.output / (args.name or f"{teacher.name}-{recipe.name}")
        if target.exists() and not args.replace:
            raise UsageError(f"{target} is there already", hint="give --replace, or another place with -o or --name")
        if target.exists() and not (target / RECORD).is_file():
            raise UsageError(
                f"{target} is no student, so none takes its place", hint="give another place with -o or --name"
            )
        done = distill(teacher, recipe, progress)
        if os.environ.get("RANK", "0") != "0":  # one of several processes writes
            return 0
        args.output.mkdir(parents=True, exist_ok=True)
        work = target.with_name(f"{target.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(done.student.folder, work)
        if target.exists():
            publish.exchange(work, target)
            shutil.rmtree(work, ignore_errors=True)
        else:
            work.rename(target)
    if warning := done.record.get("warning"):
        print(f"edge: {warning}", file=sys.stderr)
    if args.json:
        print(json.dumps({"folder": str(target), **done.record}, indent=2))
        return 0
    if sys.stdout.isatty():
        print(f"\n{done.table()}\n")
    print(target)
    return 0
