"""Take bundles off a device, and everything that only they needed.

The one that runs stays unless --current is given. Without BUNDLE, all but the current one go.

examples:
  edge remove ssh://pi@raspberrypi
  edge remove kitchen 3f2a90c1d4b7
  edge remove kitchen --current
"""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", help="ssh://user@host, adb:SERIAL, local, or one of your device file"
    )
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", help="ids or names, as edge devices shows them")
    parser.add_argument("--current", action="store_true", help="the one that runs, too")
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from edge.devices import book, installed

    device = book.find([args.device])[0].connect()
    try:
        gone, freed = installed.remove(device, args.bundles, args.root, current=args.current)
    finally:
        device.close()
    if args.json:
        print(json.dumps({"device": args.device, "removed": list(gone), "freed_bytes": freed}))
    else:
        print(f"{args.device}: removed {', '.join(gone) or 'nothing'}, {freed / 1e6:.1f} MB are free again")
    return 0
