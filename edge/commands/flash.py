"""Put a bundle on a device, and make it what runs there.

DEVICE is ssh://user@host[:port], adb:SERIAL (adb: for the only one), local, or a name of your
device file. What cannot work is refused before anything is copied. Only what the device lacks is
sent; what was cut off goes on where it was. The bundle must pass its self-test on the device
before one rename makes it current; what ran before stays, and edge rollback goes back to it.

examples:
  edge flash out/SmolLM2-135M-Instruct-gguf-q4_k_m ssh://pi@raspberrypi
  edge flash BUNDLE adb:
  edge flash BUNDLE local --json
  edge flash BUNDLE kitchen porch --jobs 2
  edge flash BUNDLE --all
  edge flash BUNDLE ssh://pi@raspberrypi --require-signature
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, UsageError

if TYPE_CHECKING:
    from edge.devices.book import Target
    from edge.devices.install import Flashed
    from edge.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="a folder that edge export made")
    parser.add_argument("devices", metavar="DEVICE", nargs="*", help="where it goes; several go in parallel")
    parser.add_argument("--all", action="store_true", help="every device of your device file")
    parser.add_argument("--group", metavar="NAME", help="every device of that group of your device file")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="how many at the same time (4)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens it must have memory for (default: all)")
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--python", metavar="PROGRAM", default="", help="a Python there that has the runtimes")
    parser.add_argument("--require-signature", action="store_true", help="take signed bundles only, and pin the key")
    parser.add_argument("--key", metavar="KEY", help="the only key to take, in base64 or as a file; pins it")
    parser.add_argument("--allow-downgrade", action="store_true", help="even if it is older than what was there")
    parser.add_argument("--force", action="store_true", help="although the device looks too small")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    from edge import bundle as bundles
    from edge.commands import _progress
    from edge.devices import book
    from edge.progress import Silent

    if args.jobs < 1:
        raise UsageError("--jobs must be 1 or more")
    bundles.read(args.bundle)
    targets = book.find(args.devices, every=args.all, group=args.group)
    with _progress.shown(quiet=args.quiet or args.json) as progress:
        if len(targets) == 1:
            done = [_one(targets[0], args, progress)]
            if isinstance(done[0], EdgeError):
                raise done[0]
        else:
            progress.start(f"flashing {len(targets)} devices", len(targets))
            done = []
            with ThreadPoolExecutor(args.jobs) as pool:
                for result in pool.map(lambda t: _one(t, args, Silent()), targets):
                    done.append(result)
                    progress.advance(len(done))
    failed = [d for d in done if isinstance(d, EdgeError)]
    if args.json:
        found = [_record(t, d) for t, d in zip(targets, done, strict=True)]
        print(json.dumps(found[0] if len(found) == 1 else {"devices": found}, indent=2))
    else:
        for target, result in zip(targets, done, strict=True):
            print(_line(target, result), file=sys.stderr if isinstance(result, EdgeError) else sys.stdout)
        if len(targets) > 1:
            print(f"{len(targets) - len(failed)} of {len(targets)} devices have it")
    return max((e.exit_code for e in failed), default=0)


def _one(target: Target, args: argparse.Namespace, progress: Progress) -> Flashed | EdgeError:
    from edge.devices import install, signature

    try:
        key = args.key or target.key
        wishes = install.Wishes(
            root=args.root, python=args.python, context_length=args.context, force=args.force,
            require_signature=args.require_signature, key=signature.public_key(key) if key else None,
            allow_downgrade=args.allow_downgrade,
        )  # fmt: skip
        device = target.connect()
        try:
            return install.flash(args.bundle, device, wishes, progress)
        finally:
            device.close()
    except EdgeError as err:
        return err
    except OSError as err:
        return EdgeError(f"{target.name}: {err.strerror or err}: {err.filename}")


def _record(target: Target, result: Flashed | EdgeError) -> dict[str, Any]:
    if isinstance(result, EdgeError):
        return {"device": target.name, "error": result.message, "hint": result.hint, "code": result.exit_code}
    return result.record()


def _line(target: Target, result: Flashed | EdgeError) -> str:
    if isinstance(result, EdgeError):
        return f"{target.name}: {result}"
    if not result.changed:
        return f"{target.name}: {result.bundle.name} runs there already"
    notes = "".join(f"\n  note: {n}" for n in result.notes)
    compared = (result.selftest or {}).get("compared")
    proof = f"its first {compared} tokens are those of the export" if compared else "it loads and answers"
    return (
        f"{target.name}: {result.bundle.name} ({result.bundle.id}) runs there with {result.how}; {proof}\n"
        f"  sent {result.sent_bytes / 1e6:.1f} of {result.total_bytes / 1e6:.1f} MB in {result.seconds:.1f} s; "
        f"talk to it: edge chat --on {target.name}\n"
        f"  or at the device: {result.root}/bin/edge-chat{notes}"
    )
