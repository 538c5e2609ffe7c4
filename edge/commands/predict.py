"""Say how fast a bundle will answer, and in how much memory, before it is copied.

From what one token makes the runtime read (the file's header tells), how fast the device's memory is, and how
near the runtime comes to that. Without --device it is about the machine you are at, whose memory is measured for
a second. Bounds are part of the answer; what they rest on is said.

examples:
  edge predict out/SmolLM2-135M-Instruct-gguf-q4_k_m
  edge predict out/* --device pi5
  edge predict BUNDLE --device pi-zero2 --context 512
  edge predict BUNDLE --device ./my-board.toml --json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.devices import profiles
from edge.devices.predict import Prediction, predict
from edge.devices.preflight import mb
from edge.errors import UsageError

HERE = "this"
_BUSY = 0.15  # share of the processors that others may have before it is said
_DEPTH = 128  # tokens before the answer that is predicted: a question and half of its answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+", help="folders that edge export made")
    parser.add_argument(
        "--device", default=HERE, metavar="NAME",
        help=f"{', '.join(profiles.names())}, a TOML file, or {HERE} (the machine you are at)",
    )  # fmt: skip
    parser.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of the measurement here (default: the physical cores)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    found = [(folder.expanduser(), bundles.read(folder.expanduser())) for folder in args.bundles]
    for _, bundle in found:
        if args.context is not None and not 0 < args.context <= bundle.context_length:
            raise UsageError(f"{bundle.name} holds 1 to {bundle.context_length} tokens, {args.context} were asked for")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"cannot run on {args.threads} threads")
    device = None if args.device == HERE else profiles.read(args.device)
    here, busy = measured(args.threads) if device is None else ({}, 0.0)
    rows = []
    for folder, bundle in found:
        length = args.context or bundle.context_length
        rows.append(
            (bundle, predict(folder, bundle, device, context_length=length, depth=min(_DEPTH, length - 1), **here))
        )
    if args.json:
        print(json.dumps({**here, "predictions": [_record(*row) for row in rows]}, indent=1))
        return 0
    if here:
        print(f"memory is read at {here['bandwidth'] / 1e9:.1f} GB/s here")
    print(_table(rows))
    if busy > _BUSY:
        print(f"edge: other programs use {100 * busy:.0f} % of the processors: memory looks slower than it is, and "
              "so does the prediction", file=sys.stderr)  # fmt: skip
    for note in dict.fromkeys(note for _, made in rows for note in made.notes):
        print(f"edge: {note}", file=sys.stderr)
    return 0


def measured(threads: int | None) -> tuple[dict[str, Any], float]:
    """This machine's memory: how fast it is read, and how much is free; and the share that others had meanwhile."""
    from edge import profile
    from edge.runtimes import noise
    from edge.runtimes.cores import physical_cores
    from edge.runtimes.meter import read_bandwidth_bytes_per_s

    free = profile.conditions().available_bytes
    before = noise.look()
    rate = read_bandwidth_bytes_per_s(threads or physical_cores(), free)
    others = noise.between(before, noise.look())["others_share"]
    return {"bandwidth": rate, "available_bytes": free}, others or 0.0


def _record(bundle: Bundle, made: Prediction) -> dict[str, Any]:
    return {
        "bundle": bundle.name, "id": bundle.id, "format": bundle.format, "quantization": bundle.quantization,
        "device": made.device, "tokens_per_s": made.tokens_per_s and dict(zip(("low", "expected", "high"),
                                                                              made.tokens_per_s, strict=True)),
        "memory": dict(made.memory), "against": list(made.against), "notes": list(made.notes),
    }  # fmt: skip


def _table(rows: list[tuple[Bundle, Prediction]]) -> str:
    lines = [("bundle", "answers", "memory", "")]
    for bundle, made in rows:
        speed = "not known"
        if made.tokens_per_s:
            low, expected, high = made.tokens_per_s
            speed = f"{expected:.3g} tok/s ({low:.3g} to {high:.3g})"
        total, weights, held = (mb(made.memory[f"{part}_bytes"]) for part in ("total", "weights", "cache"))
        lines.append(
            (
                f"{bundle.name} {bundle.format} {bundle.quantization}",
                speed,
                f"{total} (weights {weights}, cache {held})",
                "will not run: " + "; ".join(made.against) if made.against else "fits",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
        for line in lines
    )
