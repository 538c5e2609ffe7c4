"""Does edge flash keep up with scp and adb push, and send no more than it has to?

A bundle of two large files goes over a wire of 40 MB/s, about what a Raspberry Pi's network and a phone's cable give,
to an sshd and an adbd of this machine: once by edge, with all of its checks, and once by the program that people would
take. Then a sibling that shares one of the files is flashed, and at last the same one again; what went over the wire is
counted.

    python -m benchmarks.flash_speed                     4 minutes
    python -m benchmarks.flash_speed --mb 4 --rounds 1   to try it
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Contestant, Race
from tests.devices.bundles import two_bundles
from tests.rigs import sshd
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device
from tests.rigs.relay import Relay

_SMALL_BYTES = 100_000  # what an unchanged bundle may cost
_SOON_S = 3.0
_AT_LEAST = 0.85


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each (5)")
    parser.add_argument("--mb", type=int, default=150, metavar="N", help="of each of the two files (150)")
    parser.add_argument("--rate", type=int, default=40_000_000, metavar="N", help="bytes a second; 0: no limit")
    args = parser.parse_args()
    if reason := sshd.missing() or tree.missing() or client.missing():
        sys.exit(reason)
    work = Path(
        tempfile.mkdtemp(prefix="edge-flash-speed-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    )
    done = Race(str(__doc__), load_before=race.settled())
    claims: list[Claim] = []
    try:
        old, new = two_bundles(work, args.mb * 1_000_000)
        own = args.mb * 1_000_000
        for link, other, rig in (("ssh", "scp", _ssh), ("adb", "push", _adb)):
            with rig(work / link, args.rate) as (address, wire, places):
                claims += _link(link, other, address, wire, places, (old, new), own, args.rounds, done)
    finally:
        shutil.rmtree(work)
    return race.keep("flash_speed", done, race.judge(done, claims))


def _link(
    link: str, other: str, address: str, wire: Relay, places: Path, pair: tuple[Path, Path], own: int, rounds: int,
    done: Race,
) -> list[Claim]:  # fmt: skip
    """Every measurement over one link; what is claimed of it."""
    first, sibling, same = f"edge flash, {link}", f"a sibling, {link}", f"the same again, {link}"

    def once(name: str, how: str, folder: Path, place: str) -> None:
        before = wire.passed
        contestant = Contestant(name, race.contestant("transfer", how, folder, address, place))
        sample = {**race.once(contestant), "wire_bytes": float(wire.passed - before)}
        done.samples.setdefault(name, []).append(sample)
        print(f"  {name}: {sample['took_s']:.2f} s, {sample['wire_bytes'] / 1e6:.2f} MB over the wire", flush=True)

    for i in range(rounds):
        store, copy = f"{places}/store", f"{places}/copy"
        steps = [(first, "flash", store), (other, other, copy)]
        for name, how, place in steps if i % 2 == 0 else reversed(steps):
            once(name, how, pair[0], place)
        once(sibling, "flash", pair[1], store)
        once(same, "flash", pair[1], store)
        for place in (store, copy):
            shutil.rmtree(_here(places, place), ignore_errors=True)
    return [
        Claim("bytes_per_s", first, other, at_least=_AT_LEAST, says=f"bytes a second of a first flash, {link}"),
        Claim("wire_bytes", sibling, "what differs", at_most=1.02, fixed=float(own + _SMALL_BYTES),
              says=f"what a sibling costs, {link}"),
        Claim("wire_bytes", same, "100 kB", at_most=1.0, fixed=float(_SMALL_BYTES),
              says=f"what the same costs, {link}"),
        Claim("took_s", same, "3 s", at_most=1.0, fixed=_SOON_S, says=f"the same again, {link}"),
    ]  # fmt: skip


def _here(places: Path, place: str) -> Path:
    """Where a place of the rig lies on this machine."""
    return Path(os.environ.get("EDGE_RIG_ROOT", "/")) / place.lstrip("/")


@contextmanager
def _ssh(folder: Path, rate: int) -> Iterator[tuple[str, Relay, Path]]:
    rig = sshd.Sshd(folder)
    wire = Relay(rig.port, rate)
    known = folder / "known_hosts"
    known.write_text(known.read_text().replace(f":{rig.port} ", f":{wire.port} "))
    rig.config.write_text(re.sub(r"Port \d+", f"Port {wire.port}", rig.config.read_text()))
    os.environ.update(EDGE_SSH_CONFIG=str(rig.config), EDGE_RIG_ROOT="/")
    yield rig.address, wire, folder
    wire.close()
    rig.stop()


@contextmanager
def _adb(folder: Path, rate: int) -> Iterator[tuple[str, Relay, Path]]:
    root = folder / "tree"
    with Adb(folder / "home") as adb:
        os.environ.update(adb.environment)
        with Device(tree.Tree(root)) as rig:
            wire = Relay(int(rig.serial.rpartition(":")[2]), rate)
            os.environ["EDGE_RIG_ROOT"] = str(root)
            serial = f"127.0.0.1:{wire.port}"
            adb("connect", serial)
            yield f"adb:{serial}", wire, Path("/data/local/tmp")
            wire.close()


if __name__ == "__main__":
    sys.exit(main())
