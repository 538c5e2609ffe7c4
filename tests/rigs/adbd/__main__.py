"""Start a device and keep it until Ctrl-C: python -m tests.rigs.adbd --help"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.rigs.adbd import client, tree
from tests.rigs.adbd.device import Device


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs.adbd", description=__doc__)
    parser.add_argument("--arm64", action="store_true", help="arm64 programs under qemu")
    parser.add_argument("--cpu", choices=sorted(tree.CPUS), default="cortex-a76", help="which processor qemu shows")
    parser.add_argument("--state", choices=["ready", "unauthorized", "silent"], default="ready")
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1")
    args = parser.parse_args()
    architecture: tree.Architecture = "arm64" if args.arm64 else "host"
    if reason := tree.missing(architecture) or client.missing():
        print(reason, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="edge-adbd-") as folder,
        Device(tree.Tree(Path(folder, "tree"), architecture, args.cpu), port=args.port, state=args.state) as device,
    ):
        print(f"adb connect {device.serial}\nadb -s {device.serial} shell\nCtrl-C ends it", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
