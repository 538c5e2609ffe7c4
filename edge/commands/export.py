"""Export a checkpoint to bundles that are proven against it.

SOURCE is a Hugging Face folder, a hub id (organisation/name), a .gguf file, or the
built-in model smollm2. Each format becomes one bundle: a folder below -o that other
programs can use as it is. It is compared with its source on the runtime that ships;
one that does not behave like its source is not published (exit code 3).

With a budget (--max-size and what stands beside it) the bits of each matrix are planned
instead: what errs least of all that fits. Nothing that fits is exit code 3, with what
comes closest.

Finished stages are kept, so an export that was stopped goes on where it was.
On a terminal it shows what it does; piped, it prints the bundles' folders alone.

examples:
  edge export smollm2
  edge export smollm2 --format gguf,onnx,tflite --quant 4bit -o out/
  edge export ./my-model --quant q4_k_m --calibration chats.txt --or-better
  edge export ./my-model --quant 8bit --json
  edge export smollm2 --format tflite --quant 8bit --also litertlm
  edge export smollm2-moe --format onnx --experts keep=3
  edge export smollm2 --distill english-chat --quant 8bit
  edge export ./my-model --format onnx --exporter optimum
  edge export smollm2 --format gguf,onnx --quant 8bit --context 8192 --kv 8bit
  edge export smollm2 --max-size 100MB
  edge export smollm2 --format auto --device pi4 --max-memory 600MB --min-tokens-per-second 10
  edge export smollm2 --min-agreement 0.93 --dry-run --plot front.html
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.commands import _budget
from edge.errors import BudgetError
from edge.find import names

if TYPE_CHECKING:
    from edge.export.planner.run import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = names("edge.export.formats")
    parser.add_argument("source", metavar="SOURCE", help="folder, hub id, .gguf file or built-in name")
    parser.add_argument(
        "--format",
        default="gguf",
        metavar="F[,F...]",
        help=f"formats to make, of: {', '.join(formats)}, all, or auto (default: gguf)",
    )
    parser.add_argument(
        "--quant",
        metavar="Q",
        help="16bit, 8bit, 6bit, 5bit, 4bit, ... or a format's own name such as q4_k_m or int4 (default: 4bit)",
    )
    parser.add_argument(
        "--also",
        default="",
        metavar="P[,P...]",
        help=f"put other programs' single files beside the model: {', '.join(names('edge.export.packings'))}",
    )
    parser.add_argument("--exporter", metavar="E", help="who writes the ONNX graph: mobius (default) or optimum")
    parser.add_argument("--kv", choices=["8bit"], help="hold keys and values in 8 bits: half the memory of a context")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="where the bundles go (default: out)")
    parser.add_argument("--name", help="what the bundles are called (default: the checkpoint's name)")
    parser.add_argument("--replace", action="store_true", help="put new bundles in the place of old ones")
    parser.add_argument("--context", type=int, metavar="N", help="tokens that must fit (default: 2048, or the model's)")
    parser.add_argument("--or-better", action="store_true", help="try larger quantizations until one passes the gate")
    parser.add_argument("--no-gate", action="store_true", help="publish without proof; the bundle is marked unproven")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="text or chats to calibrate with (default: our own)"
    )
    parser.add_argument(
        "--experts",
        metavar="keep=N",
        type=_kept,
        help="leave out all but the N experts of each layer that are used most",
    )
    parser.add_argument(
        "--distill",
        metavar="R",
        help="make a smaller student first, by a recipe: a TOML file, or english-chat, english-chat-small, half",
    )
    parser.add_argument("--no-calibration", action="store_true", help="quantize without looking at any text")
    parser.add_argument("--held-out", type=Path, metavar="FILE", help="text to judge by (default: our own)")
    parser.add_argument("--time-limit", type=float, metavar="MIN", help="refuse what will take longer than this")
    _budget.add_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="say what it would take, or with a budget what would be made, and stop"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def _kept(text: str) -> int:
    """`keep=N`, N a whole number above 0."""
    word, _, number = text.partition("=")
    if word != "keep" or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"wanted keep=N with a whole number N, found {text!r}")
    return int(number)


def run(args: argparse.Namespace) -> int:
    from edge.commands import _progress
    from edge.export import pipeline

    whole = args.format in {"all", _budget.AUTO}
    formats = names("edge.export.formats") if whole else tuple(args.format.split(","))
    plans: list[Plan] = []
    planned = _budget.asked(args)
    args.quant = args.quant or "4bit"
    if args.dry_run and not planned:
        return _need(args, formats)
    make = _budget.maker(args, plans) if planned else None
    try:
        with _progress.shown(quiet=args.quiet) as progress:
            done = pipeline.export(
                args.source,
                args.output,
                formats=formats,
                quantization=args.quant,
                also=tuple(filter(None, args.also.split(","))),
                gate=not args.no_gate,
                or_better=args.or_better,
                context_length=args.context,
                calibration=args.calibration,
                held_out=args.held_out,
                calibrate=not args.no_calibration,
                name=args.name,
                keep_experts=args.experts,
                distill=args.distill,
                exporter=args.exporter,
                kv=args.kv,
                make=make,
                leave_out=args.format == _budget.AUTO,
                replace_existing=args.replace,
                time_limit_s=None if args.time_limit is None else 60 * args.time_limit,
                progress=progress,
            )
    except BudgetError:
        _budget.show(args, plans)
        raise
    if planned:
        _budget.show(args, plans)
    for warning in dict.fromkeys(w for one in done for w in _warnings(one.bundle.quality)):
        print(f"edge: {warning}", file=sys.stderr)
    if args.json and done:
        print(json.dumps({"bundles": [pipeline.to_record(d) for d in done]}, indent=2))
    if args.json or not done:
        return 0
    for one in done:
        if sys.stdout.isatty():
            print(_of_student(one.bundle.quality), end="")
            print(f"\n{one.verdict.table()}" if one.verdict else "\nunproven: exported with --no-gate")
            print(f"{one.folder}  {one.bundle.size_bytes / 1e6:.1f} MB")
        else:
            print(one.folder)
    if sys.stdout.isatty():
        print(f"\ntalk to it:  edge chat {done[0].folder}")
    return 0


def _warnings(quality: Mapping[str, Any] | None) -> list[str]:
    """What was said of the texts that it was made with."""
    quality = quality or {}
    return [row["warning"] for row in (quality, quality.get("distilled") or {}) if row.get("warning")]


def _of_student(quality: Mapping[str, Any] | None) -> str:
    """How far a student is from its teacher: the gate compared with the student."""
    if not quality or "distilled" not in quality:
        return ""
    from edge.export.distill.run import rows

    return "\n" + "".join(f"{name:<32}{value}\n" for name, value in rows(quality["distilled"]))


def _need(args: argparse.Namespace, formats: tuple[str, ...]) -> int:
    from edge.export import pipeline

    need = pipeline.estimate(
        args.source, formats=formats, quantization=args.quant, gate=not args.no_gate, calibrate=not args.no_calibration
    )
    if args.json:
        print(json.dumps(vars(need), indent=2))
    else:
        print(f"memory  {need.ram_bytes / 1e9:.1f} GB")
        print(f"disk    {need.disk_bytes / 1e9:.1f} GB, kept in the cache and in {args.output}")
        print(f"time    about {max(1, round(need.time_s / 60))} min on two cores, less for what is in the cache")
    return 0
