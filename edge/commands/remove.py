"""Take bundles off a device, and everything that only they needed.

The one that runs stays unless --current is given. Without BUNDLE, all but the current one go. A service
that edge flash --service made goes with the current bundle, or with --service alone.

examples:
  edge remove ssh://pi@raspberrypi
  edge remove kitchen 3f2a90c1d4b7
  edge remove kitchen --current
  edge remove kitchen --service
"""

from __future__ import annotations

import argparse
import json

from edge.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", help="ssh://user@host, adb:SERIAL, local, or one of your device file"
    )
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", help="ids or names, as edge devices shows them")
    parser.add_argument("--current", action="store_true", help="the one that runs, too")
    parser.add_argument("--service", action="store_true", help="only the service, not the bundles")
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from edge.devices import book, installed
    from edge.devices.preflight import mb

    if args.service and (args.bundles or args.current):
        raise UsageError("--service takes the service away, and no bundles")
    device = book.find([args.device])[0].connect()
    try:
        if args.service:
            stopped = installed.stop_serving(device, args.root)
            print(
                json.dumps({"device": args.device, "removed": [], "service": stopped})
                if args.json
                else f"{args.device}: {'nothing is served there any more' if stopped else 'there was no service'}"
            )
            return 0
        gone, freed = installed.remove(device, args.bundles, args.root, current=args.current)
    finally:
        device.close()
    if args.json:
        print(json.dumps({"device": args.device, "removed": list(gone), "freed_bytes": freed}))
    else:
        print(f"{args.device}: removed {', '.join(gone) or 'nothing'}, {mb(freed)} are free again")
    return 0
