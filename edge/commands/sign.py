"""Sign a bundle, so that devices can tell whose it is and which is newer.

The signature (Ed25519) is over the manifest, which names the hash of every file. A device that a
bundle was flashed to with --require-signature or --key takes bundles of that key only, and none
that is older than what it had.

examples:
  edge sign --new-key my.key
  edge sign out/SmolLM2-135M-Instruct-gguf-q4_k_m --key my.key
  edge sign BUNDLE --key my.key --serial 7
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="a folder that edge export made")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key to sign with")
    parser.add_argument("--new-key", type=Path, metavar="FILE", help="make a key there, and show its public half")
    parser.add_argument("--serial", type=int, metavar="N", help="how new it is (default: the time in seconds)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from edge import bundle as bundles
    from edge.devices import signature

    if args.new_key:
        public = signature.make_key(args.new_key.expanduser())
        print(json.dumps({"public_key": public}) if args.json else public)
        if args.bundle is None:
            return 0
    key = args.key or args.new_key
    if args.bundle is None or key is None:
        raise UsageError(
            "wanted a bundle and a key", hint="as: edge sign BUNDLE --key FILE, or edge sign --new-key FILE"
        )
    bundle = bundles.check(args.bundle)
    signed = signature.sign(args.bundle, bundle, key.expanduser(), args.serial)
    if args.json:
        print(json.dumps({"bundle": bundle.id, "key": signed.key, "serial": signed.serial}))
    else:
        print(f"{args.bundle}: signed as number {signed.serial} with {signed.key}")
    return 0
