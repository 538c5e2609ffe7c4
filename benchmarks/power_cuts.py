"""Does a power cut in the middle of a flash leave a device that runs?

An emulated arm64 machine (own kernel, systemd, sshd, ext4 on a card) is flashed over ssh while qemu logs all that its
disk is told. Each replayed cut makes the disk that a cut after one random write could have left (of what was written
after the last flush, every 4 KiB or not, by chance), recovers it with a real ext4, hashes everything, and flashes once
more. Each pulled plug kills the machine at a random moment of a flash, starts it again, and does the same over ssh.
Broken is: anything but the bundle before or the new one runs, a flash that was said to be done is not, a file is not
what its name says, or the next flash fails. Without the flushes of edge's store, cuts must be found to break it.

    python -m benchmarks.power_cuts                          300 replayed cuts and 10 pulled plugs, 20 minutes
    python -m benchmarks.power_cuts --cuts 10 --plugs 1      to try it
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import race
from benchmarks.race import Claim, Race
from edge import bundle as bundles
from edge.devices import runner
from edge.devices.address import connect
from edge.devices.install import flash
from edge.devices.store import Store
from edge.errors import EdgeError
from tests.devices import powercuts
from tests.devices.bundles import two_bundles
from tests.rigs import card, machine, powercut

_CAREFUL, _CARELESS = "/var/lib/careful", "/var/lib/careless"
_ROUNDS = 3  # flashes of each of the two bundles


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=300, metavar="N", help="replayed cuts (300)")
    parser.add_argument("--plugs", type=int, default=10, metavar="N", help="times that the machine is killed (10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which cuts (0)")
    args = parser.parse_args()
    if reason := machine.missing() or powercut.missing():
        sys.exit(reason)
    folder = Path(tempfile.mkdtemp(prefix="edge-cuts-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    rig = machine.Machine(folder / "machine", log=True)
    os.environ["EDGE_SSH_CONFIG"] = str(rig.config)
    runner.choose = powercuts.quick
    done = Race(str(__doc__))
    try:
        _replayed(rig, folder, args.cuts, args.seed, done)
        _pulled(rig, folder, args.plugs, args.seed, done)
    finally:
        rig.stop()
        shutil.rmtree(folder)
    claims = []
    for name, samples in list(done.samples.items()):
        broken = sum(s["broken"] for s in samples)
        done.samples[f"{name}, in all"] = [{"broken": broken, "cuts": len(samples)}]
        bound = {"at_least": 0.02} if "without" in name else {"at_most": 0.0}
        says = f"broken, of {len(samples)} {name}"
        claims.append(Claim("broken", f"{name}, in all", "cuts", says=says, fixed=float(len(samples)), **bound))
    return race.keep("power_cuts", done, race.judge(done, claims))


def _replayed(rig: machine.Machine, folder: Path, count: int, seed: int, done: Race) -> None:
    pair = two_bundles(folder)
    rig.start()
    rig.run(f"sudo install -d -o pi {_CAREFUL} {_CARELESS}")
    assert rig.log is not None
    careful = powercuts.flashed(rig, [*pair] * _ROUNDS, _CAREFUL)
    careless = powercuts.flashed(rig, pair, _CARELESS, powercuts.careless)
    kept = folder / "kept.log"
    kept.write_bytes(rig.log.read_bytes())
    for name, steps, n in (("replayed cuts", careful, count), ("replayed cuts without flushes", careless, count // 4)):
        done.contestants[name] = f"{len(steps)} flashes"
        for cut, wrong in powercuts.outcomes(card.card().image, kept, steps, n, folder, seed):
            done.samples.setdefault(name, []).append({"after_write": cut, "broken": float(bool(wrong))})
            if wrong:
                print(f"  {name}: after write {cut}: {wrong[0]}", flush=True)


def _pulled(rig: machine.Machine, folder: Path, count: int, seed: int, done: Race) -> None:
    pair = [folder / "old", folder / "new"]
    chance = random.Random(seed)
    before = bundles.read(pair[1]).id
    took_s = 10.0
    for i in range(count):
        folder_now = pair[i % 2]
        going = threading.Thread(target=_flash_quietly, args=(folder_now, rig))
        moment_s = chance.random() * took_s
        going.start()
        time.sleep(moment_s)
        rig.cut()
        rig.start()
        going.join()
        device = connect(f"{rig.address}{_CAREFUL}")
        new = bundles.read(folder_now).id
        began = time.monotonic()
        try:
            wrong = Store(device).inventory().current not in (before, new)
            flash(folder_now, device)
            wrong = wrong or Store(device).inventory().current != new or bool(Store(device).fsck())
        except EdgeError as err:
            print(f"  plug {i + 1}: {err.message}", flush=True)
            wrong = True
        finally:
            device.close()
        before, took_s = new, max(4.0, time.monotonic() - began)
        done.samples.setdefault("pulled plugs", []).append({"moment_s": moment_s, "broken": float(wrong)})
        print(
            f"  plug {i + 1} of {count}, {moment_s:.1f} s after the flash began: {'broken' if wrong else 'whole'}",
            flush=True,
        )


def _flash_quietly(folder: Path, rig: machine.Machine) -> None:
    device = connect(f"{rig.address}{_CAREFUL}")
    with contextlib.suppress(EdgeError):
        flash(folder, device)
    device.close()


if __name__ == "__main__":
    sys.exit(main())
