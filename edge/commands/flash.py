"""Put a bundle on a device, and make it what runs there.

DEVICE is ssh://user@host[:port], adb:SERIAL (adb: for the only one), local, or a name of your
device file. What cannot work is refused before anything is copied. Only what the device lacks is
sent; what was cut off goes on where it was. The bundle must pass its self-test on the device
before one rename makes it current; what ran before stays, and edge rollback goes back to it.

With --runner llama.cpp a GGUF bundle runs without Python, by one static program of a few megabytes:
the smallest way, for text alone. edge chat --on is the same; measuring, pictures and serving need
the runtime pack, which is what runs otherwise.

With --service a Raspberry Pi serves what is current there from its start on, as edge serve does here:
to itself, or with --host 0.0.0.0 to its network. edge remove DEVICE --service takes that away.

image:FILE is an image of Raspberry Pi OS or Debian for arm64, as it is downloaded and unpacked: bundle,
runtime and service go into its root partition, so that a card written from it answers at first boot.
The image itself stays as it is, unless --in-place is given; --output names the new one.

examples:
  edge flash out/SmolLM2-135M-Instruct-gguf-q4_k_m ssh://pi@raspberrypi
  edge flash BUNDLE adb:
  edge flash BUNDLE adb: --runner llama.cpp
  edge flash BUNDLE local --json
  edge flash BUNDLE kitchen porch --jobs 2
  edge flash BUNDLE --all
  edge flash BUNDLE ssh://pi@raspberrypi --require-signature
  edge flash BUNDLE ssh://pi@raspberrypi --service
  edge flash BUNDLE image:raspios.img --output card.img --cpu armv8.2
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
    from edge.devices.service import Service
    from edge.progress import Progress

_IMAGE = "image:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="a folder that edge export made")
    parser.add_argument("devices", metavar="DEVICE", nargs="*", help="where it goes; several go in parallel")
    parser.add_argument("--all", action="store_true", help="every device of your device file")
    parser.add_argument("--group", metavar="NAME", help="every device of that group of your device file")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="how many at the same time (4)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens it must have memory for (default: all)")
    parser.add_argument("--root", metavar="FOLDER", help="where its store lies there")
    parser.add_argument("--python", metavar="PROGRAM", default="", help="a Python there that has the runtimes")
    parser.add_argument("--runner", choices=("llama.cpp",), help="run it by this program alone (GGUF, arm64)")
    parser.add_argument("--require-signature", action="store_true", help="take signed bundles only, and pin the key")
    parser.add_argument("--key", metavar="KEY", help="the only key to take, in base64 or as a file; pins it")
    parser.add_argument("--allow-downgrade", action="store_true", help="even if it is older than what was there")
    group = parser.add_argument_group("a server there")
    group.add_argument("--service", action="store_true", help="serve what is current, from the device's start on")
    group.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1, the device alone")
    group.add_argument("--port", type=int, default=8080, metavar="N", help="default: 8080")
    group = parser.add_argument_group("an image of a card")
    group.add_argument("--output", type=Path, metavar="FILE", help="the new image (default: NAME-edge.img beside it)")
    group.add_argument("--in-place", action="store_true", help="the image itself, once the new one is whole")
    group.add_argument("--cpu", metavar="LEVEL", default="armv8.0", help="armv8.0, or armv8.2 for a Raspberry Pi 5")
    parser.add_argument("--force", action="store_true", help="although the device looks too small")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    from edge import bundle as bundles
    from edge.commands import _progress
    from edge.devices import book
    from edge.devices.service import Service
    from edge.progress import Silent

    if args.jobs < 1:
        raise UsageError("--jobs must be 1 or more")
    bundles.read(args.bundle)
    service = Service(args.host, args.port)
    if any(name.startswith(_IMAGE) for name in args.devices):
        return _image(args, service)
    if args.output or args.in_place:
        raise UsageError("--output and --in-place are for images of cards", hint="as: image:raspios.img")
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
            print(_line(target, result, args.root), file=sys.stderr if isinstance(result, EdgeError) else sys.stdout)
        if len(targets) > 1:
            print(f"{len(targets) - len(failed)} of {len(targets)} devices have it")
    return max((e.exit_code for e in failed), default=0)


def _image(args: argparse.Namespace, service: Service) -> int:
    """Into the image of a card: no device is there, and so nothing is asked, and nothing is tested."""
    from edge.commands import _progress
    from edge.devices import install, signature
    from edge.devices.card import image as card

    if args.runner:
        raise UsageError("--runner is for devices that are there", hint="a card gets the runtime pack")
    if len(args.devices) > 1 or args.all or args.group:
        raise UsageError("one image at a time, and no devices beside it")
    path = Path(args.devices[0].removeprefix(_IMAGE)).expanduser()
    for name in ("root", "python", "context", "force", "allow_downgrade"):
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} is for devices, not for images of cards")
    if args.in_place and args.output:
        raise UsageError("--in-place and --output exclude each other")
    output = path if args.in_place else args.output or path.with_name(f"{path.stem}-edge.img")
    if not args.in_place and output.exists():
        raise UsageError(f"{output} is there already", hint="name another --output, or remove it")
    with _progress.shown(quiet=args.quiet or args.json) as progress:
        wishes = install.Wishes(
            require_signature=args.require_signature, key=signature.public_key(args.key) if args.key else None,
            service=service,
        )  # fmt: skip
        done = card.write(args.bundle, path, output, level=args.cpu, wishes=wishes, progress=progress)
    if args.json:
        print(json.dumps(done.record(), indent=2))
        return 0
    print(
        f"{done.image}: {done.system} with {done.bundle.name} ({done.bundle.id}) and {done.how}; "
        f"{done.added_bytes / 1e6:.0f} MB, its root partition grew by {done.grown_bytes / 1e6:.0f} MB\n"
        f"  write it to a card; the bundle tests itself when it is started first, and serves on "
        f"{service.host}:{service.port}\n"
        f"  or at the device: edge-chat"
    )
    return 0


def _one(target: Target, args: argparse.Namespace, progress: Progress) -> Flashed | EdgeError:
    from edge.devices import install, signature
    from edge.devices.service import Service

    try:
        key = args.key or target.key
        wishes = install.Wishes(
            root=args.root, python=args.python, context_length=args.context, force=args.force,
            require_signature=args.require_signature, key=signature.public_key(key) if key else None,
            runner=args.runner, allow_downgrade=args.allow_downgrade,
            service=Service(args.host, args.port) if args.service else None,
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
    return {**result.record(), "device": target.name, "address": result.device}


def _line(target: Target, result: Flashed | EdgeError, root: str | None) -> str:
    from edge.devices import book
    from edge.devices.preflight import mb

    if isinstance(result, EdgeError):
        return f"{target.name}: {result}"
    notes = "".join(f"\n  note: {n}" for n in result.notes)
    if not result.changed:
        return f"{target.name}: {result.bundle.name} ({result.bundle.id}) runs there already{notes}"
    compared = (result.selftest or {}).get("compared")
    proof = f"its first {compared} tokens are those of the export" if compared else "it loads and answers"
    return (
        f"{target.name}: {result.bundle.name} ({result.bundle.id}) runs there with {result.how}; {proof}\n"
        f"  sent {mb(result.sent_bytes)} of {mb(result.total_bytes)} in {result.seconds:.1f} s; "
        f"talk to it: edge chat --on {target.name}{f', once {book.place()} names its root' if root else ''}\n"
        f"  or at the device: {result.root}/bin/edge-chat{notes}"
    )
