"""Show what edge keeps on this machine, and make room.

Exports keep what they made on their way, so that the next one starts where they are alike. What is made again
from a checkpoint alone may go at any time; runtime packs, sources and distilled students stay, for they took a
network, or hours. When an export lacks disk, what was unused for two hours goes by itself.

examples:
  edge cache
  edge cache --clear
  edge cache --clear --unused 7d
  edge cache --clear --keep 10GB --dry-run
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from edge import quantity, room
from edge.cache import root
from edge.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="remove what is made again, the longest unused first")
    parser.add_argument("--keep", metavar="SIZE", help="with --clear: stop when this much is left of it (10GB)")
    parser.add_argument("--unused", metavar="TIME", help="with --clear: only what nobody asked for in this time (7d)")
    parser.add_argument("--dry-run", action="store_true", help="with --clear: only say what would go")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    if not args.clear and (args.keep or args.unused or args.dry_run):
        raise UsageError("--keep, --unused and --dry-run say how to clear", hint="add --clear")
    if not args.clear:
        return _show(room.kept(), as_json=args.json)
    at_most_bytes = quantity.n_bytes(args.keep) if args.keep else None
    unused_s = quantity.seconds(args.unused) if args.unused else 0.0
    going = room.chosen(at_most_bytes=at_most_bytes, unused_s=unused_s)
    freed = sum(one.n_bytes for one in going) if args.dry_run else room.remove(going)
    if args.json:
        print(json.dumps({"removed": [f"{one.kind}/{one.name}" for one in going], "freed_bytes": freed}))
    elif args.dry_run:
        for one in going:
            print(f"{one.kind}/{one.name}  {one.n_bytes / 1e6:.1f} MB")
        print(f"{len(going)} would go, {freed / 1e6:,.1f} MB")
    else:
        print(f"{len(going)} removed, {freed / 1e6:,.1f} MB are free again")
    return 0


def _show(kept: Sequence[room.Kept], *, as_json: bool) -> int:
    kinds = [_kind([one for one in kept if one.kind == kind]) for kind in sorted({one.kind for one in kept})]
    kinds.sort(key=lambda kind: -kind["bytes"])
    total = sum(kind["bytes"] for kind in kinds)
    if as_json:
        print(json.dumps({"cache": str(root()), "bytes": total, "kinds": kinds}, indent=2))
        return 0
    print(f"{root()}, {total / 1e6:,.1f} MB")
    for kind in kinds:
        days = int((time.time() - kind["used_s"]) / 86400)
        used = "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"
        goes = "made again when needed" if kind["made_again"] else "stays"
        print(f"  {kind['kind']:<18} {kind['count']:>4} {kind['bytes'] / 1e6:>10,.1f} MB  {used:<12} {goes}")
    return 0


def _kind(things: Sequence[room.Kept]) -> dict[str, Any]:
    return {
        "kind": things[0].kind,
        "count": len(things),
        "bytes": sum(one.n_bytes for one in things),
        "used_s": max(one.used_s for one in things),
        "made_again": things[0].made_again,
    }
