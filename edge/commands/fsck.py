"""Check what is on a device, byte by byte.

Every file there is hashed on the device. With --repair, what is damaged is taken away, and sent
again from BUNDLE when that has it; when the current bundle cannot be made whole, the previous one
runs again, if it is whole. Without --repair nothing changes.

examples:
  edge fsck ssh://pi@raspberrypi
  edge fsck kitchen --repair
  edge fsck kitchen --repair --from out/SmolLM2-135M-Instruct-gguf-q4_k_m
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="DEVICE", help="ssh://user@host, adb:SERIAL, local, or one of your device file"
    )
    parser.add_argument("--repair", action="store_true", help="put right what can be put right")
    parser.add_argument(
        "--from", dest="source", type=Path, action="append", default=[], metavar="BUNDLE",
        help="a bundle to take lost files from; may be given several times",
    )  # fmt: skip
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from edge.commands import _progress
    from edge.devices import book, repair

    device = book.find([args.device])[0].connect()
    with _progress.shown(quiet=args.json) as progress:
        try:
            found = repair.fsck(device, args.root, repair=args.repair, sources=args.source, progress=progress)
        finally:
            device.close()
    if args.json:
        print(json.dumps({"device": args.device, **found.record()}, indent=2))
        return found.exit_code
    for fault in found.faults:
        print(f"{args.device}: {repair.words(fault)}")
    now = f"{found.current or 'nothing'} is current"
    if found.current != found.before:
        now = f"{found.current or 'nothing'} runs now, in place of {found.before or 'nothing'}"
    mend = f"edge fsck {args.device} --repair --from BUNDLE"
    if not found.faults:
        what = "everything is as it should be" if found.current else "nothing is installed there that could be damaged"
        print(f"{args.device}: {what}")
    elif not args.repair:
        print(f"put it right with: {mend}")
    elif not found.left:
        print(f"{args.device}: {now}; everything is as it should be now")
    else:
        print(f"{args.device}: {now}; left: {'; '.join(map(repair.words, found.left))}")
        print(f"what is lost comes back with: edge flash BUNDLE {args.device}, or {mend}")
    return found.exit_code
