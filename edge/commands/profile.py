"""See where the time goes: every operator and layer, in reading a prompt and in answering.

The runtime's own instruments count: onnxruntime's profiler, LiteRT's, and llama.cpp's evaluation callback. They cost
time of their own, so the answer is also measured without them, and the difference is said. What the shares say is
right for large operators; small ones look larger than they are.

-o makes a picture of it, --trace a file that ui.perfetto.dev opens (it stays on your machine there, or use
chrome://tracing). Memory over time is in both.

With --on, what edge flash has put on a device is profiled there. BUNDLE is then a name or an id of it; without one it
is what runs there.

examples:
  edge profile out/SmolLM2-135M-Instruct-onnx-int4-mixed
  edge profile BUNDLE -o where.html --trace trace.json
  edge profile BUNDLE --prompt-tokens 512 --new-tokens 32 --threads 1
  edge profile BUNDLE --json
  edge profile --on ssh://pi@raspberrypi -o where.html
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import profile, time_spent
from edge.commands import _progress
from edge.commands._whole import write_whole
from edge.errors import EdgeError, UsageError

if TYPE_CHECKING:
    from edge.commands._places import Place

_TIMEOUT_S = 1800
_BUSY = 0.15  # share of the processors that others may have before it is said
_ROWS = 10  # operators of a table; what is left takes next to nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="a folder that edge export made")
    parser.add_argument(
        "--on", metavar="DEVICE", help="profile what was flashed there: ssh://user@host, adb:SERIAL, ..."
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="a page with pictures of it")
    parser.add_argument("--trace", type=Path, metavar="FILE.json", help="a Chrome trace, for ui.perfetto.dev")
    parser.add_argument("--json", action="store_true", help="print sums and every event as JSON")
    parser.add_argument("--prompt-tokens", type=int, default=128, metavar="N", help="tokens to read (128)")
    parser.add_argument("--new-tokens", type=int, default=16, metavar="N", help="tokens to answer (16)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="default: as edge chat would take, else the physical cores"
    )
    parser.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")


def run(args: argparse.Namespace) -> int:
    for name in ("prompt_tokens", "new_tokens", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more")
    if args.on is not None:
        return _there(args)
    if args.bundle is None:
        raise UsageError("which bundle?", hint="give its folder, or a device with --on")
    from edge.commands._places import Here

    return _profiled(args, Here(args.bundle), profile.this_machine().record())


def _there(args: argparse.Namespace) -> int:
    """As here, on a device."""
    from edge.commands._places import There
    from edge.devices import book, facts, installed

    device = book.find([args.on])[0].connect()
    try:
        asked = facts.ask(device, device.python)
        wanted = None if args.bundle is None else installed.named(args.bundle)
        return _profiled(args, There(device, asked, wanted), asked.record())
    finally:
        device.close()


def _profiled(args: argparse.Namespace, place: Place, device: dict[str, Any]) -> int:
    """Profile it, and show what came out."""
    bundle = place.bundle
    limit = min(args.context or bundle.context_length, bundle.context_length)
    if args.prompt_tokens + args.new_tokens > limit:
        raise UsageError(f"{args.prompt_tokens} and {args.new_tokens} tokens do not fit the context of {limit} tokens")
    with _progress.shown(quiet=args.json) as progress:
        progress.start("answering with instruments on")
        found = _recorded(place, args)
    found |= {
        "schema_version": time_spent.SCHEMA_VERSION,
        "bundle": {k: getattr(bundle, k) for k in ("name", "id", "format", "quantization")},
        "device": device,
        "emulated": place.emulated,
        "command": ["edge", *sys.argv[1:]],
    }
    parts = time_spent.phases(found)
    name = f"{bundle.name} {bundle.format} {bundle.quantization}{', emulated' if place.emulated else ''}"
    if args.trace:
        write_whole(args.trace, json.dumps(time_spent.trace(found, name)) + "\n")
    if args.output:
        from edge.report.profile_page import render

        write_whole(args.output, render(found, parts, name))
    if args.json:
        print(json.dumps({**found, "phases": [_summed(part) for part in parts]}, indent=1))
    else:
        print(_table(found, parts))
        for path in filter(None, (args.output, args.trace)):
            print(path)
    if place.emulated:
        print("edge: emulated: speeds say nothing about a real device", file=sys.stderr)
    others = found.get("seen", {}).get("others_share") or 0.0
    if others > _BUSY:
        print(f"edge: other programs used {100 * others:.0f} % of the processors: what is said of whole tokens is of "
              "them too", file=sys.stderr)  # fmt: skip
    return 0


def _recorded(place: Place, args: argparse.Namespace) -> dict[str, Any]:
    """What the worker recorded. Raises `EdgeError` when it did not, or says what is no recording."""
    request = {key: getattr(args, key) for key in ("threads", "context", "prompt_tokens", "new_tokens")}
    found = place.profile(request, _TIMEOUT_S)
    try:
        time_spent.phases(found)
        max(size for _, size in found["memory"])
    except (KeyError, TypeError, ValueError) as err:
        raise EdgeError(f"{place.name} cannot be profiled: its answer is no profile: {err!r:.100}") from None
    return found


def _summed(part: time_spent.Phase) -> dict[str, Any]:
    return {
        "name": part.name, "tokens": part.tokens, "us_per_token": part.us, "plain_us_per_token": part.plain_us,
        "operators_us_per_token": part.operators_us, "overhead": part.overhead,
        "operators": [vars(share) for share in part.operators],
        "layers": {str(layer): sum(spent.values()) for layer, spent in part.layers.items()},
    }  # fmt: skip


def _cost(part: time_spent.Phase) -> str:
    return (
        f"instruments cost {100 * part.overhead:.0f} %" if part.overhead > 0 else "instruments cost less than the noise"
    )


def _table(found: dict[str, Any], parts: list[time_spent.Phase]) -> str:
    lines = [
        f"{found['recording']['instrument']}, {found['threads']} {'thread' if found['threads'] == 1 else 'threads'}"
    ]
    for part in parts:
        words = {"prefill": f"reading {part.tokens} tokens", "decode": f"answering {part.tokens} tokens"}[part.name]
        lines += ["", f"{words}, microseconds for each"]
        # Names come from the file, or from a device: nothing of them may steer a terminal.
        named = ["".join(c for c in share.operator if c.isprintable()) for share in part.operators[:_ROWS]]
        width = max(map(len, named), default=0)
        for operator, share in zip(named, part.operators, strict=False):
            spent = f"{share.us:>9.1f}  {100 * share.share:>5.1f} %  {share.calls:>6.1f} x"
            lines.append(f"  {operator:<{width}}  {spent}  {'#' * round(30 * share.share)}".rstrip())
        if rest := part.operators[_ROWS:]:
            us, share_of_rest = sum(s.us for s in rest), sum(s.share for s in rest)
            lines.append(f"  {f'{len(rest)} others':<{width}}  {us:>9.1f}  {100 * share_of_rest:>5.1f} %")
        lines.append(f"  {'all operators':<{width}}  {part.operators_us:>9.1f}")
        lines.append(f"  {'with instruments':<{width}}  {part.us:>9.1f}")
        lines.append(f"  {'without them':<{width}}  {part.plain_us:>9.1f}  {_cost(part)}")
        if part.layers:
            by_layer = {layer: sum(by.values()) for layer, by in part.layers.items()}
            slow = max(by_layer, key=lambda layer: by_layer[layer])
            inside = sum(by_layer.values())
            lines.append(
                f"  {len(by_layer)} layers take {inside:.1f}, "
                f"{min(by_layer.values()):.1f} to {max(by_layer.values()):.1f} each "
                f"(most: layer {slow}); outside of them {part.operators_us - inside:.1f}"
            )
    resident = [size for _, size in found["memory"]]
    lines += ["", f"memory: {resident[0] / 1e6:.0f} MB before, {max(resident) / 1e6:.0f} MB at most"]
    if found["recording"]["layers_by_order"]:
        lines.append("layers: where an operator's name tells none, from the order in which it ran")
    return "\n".join(lines)
