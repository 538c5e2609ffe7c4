"""A bundle onto a rig: by edge, or the same files by the program that people would take.

python -m benchmarks.contestants.transfer {flash,scp,push} FOLDER ADDRESS PLACE

`flash` starts bundles with a line of shell: the link and the store are measured, not a model that loads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from edge import bundle as bundles
from edge.devices import runner
from edge.devices.address import connect
from edge.devices.install import Wishes, flash
from tests.devices.powercuts import quick


def flashed(folder: Path, address: str, place: str) -> float:
    """Seconds of the whole flash, from looking at the device to tidying up."""
    runner.choose = quick
    device = connect(address)
    began = time.perf_counter()
    flash(folder, device, Wishes(root=place, force=True))
    took = time.perf_counter() - began
    device.close()
    return took


def copied(argv: list[str]) -> float:
    """Seconds of a program."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    how, folder, address, place = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    size = sum(f.size_bytes for f in bundles.read(folder).files)
    match how:
        case "flash":
            took = flashed(folder, address, place)
        case "scp":
            host = address.removeprefix("ssh://")
            took = copied(["scp", "-q", "-r", "-F", os.environ["EDGE_SSH_CONFIG"], str(folder), f"{host}:{place}"])
        case _:
            took = copied(["adb", "-s", address.removeprefix("adb:"), "push", str(folder), place])
    print(json.dumps({"took_s": took, "bytes_per_s": size / took}))
