"""Go back to the bundle that ran on a device before.

It must pass its self-test first. Once more goes forward again.

examples:
  edge rollback ssh://pi@raspberrypi
  edge rollback kitchen --json
"""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", help="ssh://user@host, adb:SERIAL, local, or one of your device file"
    )
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from edge.devices import book, installed

    device = book.find([args.device])[0].connect()
    try:
        bundle, was = installed.rollback(device, args.root)
    finally:
        device.close()
    if args.json:
        print(json.dumps({"device": args.device, "current": bundle.id, "name": bundle.name, "previous": was}))
    else:
        print(f"{args.device}: {bundle.name} ({bundle.id}) runs again; {was} is the previous one now")
    return 0
