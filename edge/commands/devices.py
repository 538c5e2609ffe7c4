"""Show devices: what they are, what is on them, what runs, how much room is left.

Without DEVICE, those of your device file, the phones that adb sees, and this machine.

examples:
  edge devices
  edge devices ssh://pi@raspberrypi
  edge devices --all --json
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("devices", metavar="DEVICE", nargs="*", help="which (default: all that are known)")
    parser.add_argument("--all", action="store_true", help="every device of your device file")
    parser.add_argument("--group", metavar="NAME", help="every device of that group of your device file")
    parser.add_argument("--root", metavar="FOLDER", help="where their stores lie")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    from concurrent.futures import ThreadPoolExecutor

    from edge.devices import book, installed
    from edge.errors import EdgeError

    chosen = bool(args.devices or args.all or args.group is not None)
    targets = book.find(args.devices, every=args.all, group=args.group) if chosen else installed.known()

    def look(target: book.Target) -> dict[str, Any] | EdgeError:
        try:
            device = target.connect()
            try:
                return installed.look(device, args.root)
            finally:
                device.close()
        except EdgeError as err:
            return err

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, targets))
    failed = [e for e in found if isinstance(e, EdgeError)]
    if args.json:
        print(json.dumps({"devices": [_record(t, f) for t, f in zip(targets, found, strict=True)]}, indent=2))
    else:
        for target, one in zip(targets, found, strict=True):
            if isinstance(one, EdgeError):
                print(f"{target.name}: {one}", file=sys.stderr)
            else:
                print(_text(target.name, one))
    # A device that is asked for by name and does not answer is a failure; one of a list may be off.
    return max((e.exit_code for e in failed), default=0) if chosen else 0


def _record(target: Any, found: Any) -> dict[str, Any]:
    if isinstance(found, dict):
        return {"device": target.name, **found}
    return {"device": target.name, "error": found.message, "hint": found.hint, "code": found.exit_code}


def _text(name: str, found: dict[str, Any]) -> str:
    from edge.devices.preflight import mb

    facts, state = found["facts"], found["state"]
    ram = f"{facts['ram_bytes'] / 1e9:.1f} GB" if facts["ram_bytes"] else "? GB"
    now = [
        f"{state['temperature_c']:.0f} °C" if state["temperature_c"] is not None else "",
        f"battery {state['battery_percent']} %" if state["battery_percent"] is not None else "",
        f"throttled: {state['throttled']}" if state["throttled"] not in (None, "no") else "",
        "emulated" if facts["emulated"] else "",
    ]
    lines = [
        f"{name}: {facts['model']}, {facts['system']}, {facts['machine']}, {facts['logical_cores']} cores, {ram}"
        + "".join(f", {n}" for n in now if n),
        f"  {mb(found['free_bytes'])} free, "
        + (f"{mb(found['used_bytes'])} in {found['root']}" if found["root"] else "nothing installed yet")
        + (f"; takes bundles of the key {found['key']} only" if found["key"] else "")
        + (f"; serves on {found['served'].replace(' ', ':')}" if found["served"] else ""),
    ]
    for bundle in found["bundles"]:
        mark = {found["current"]: "runs", found["previous"]: "previous"}.get(bundle["id"], "")
        lines.append(
            f"  {bundle['id']}  {bundle['name']:<44} {bundle['format']} {bundle['quantization']}  {mark}".rstrip()
        )
    return "\n".join(lines)
