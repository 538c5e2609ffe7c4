"""Measure bundles: loading, first token, reading, answering, memory.

Every repetition is a fresh process, and with several bundles they take turns, so that none of
them gets the quiet moments. Raw samples go into the run file; edge report makes a page of it.
Measure on a machine that does nothing else: it says when the machine was busy.

With --on, what edge flash has put on a device is measured there. BUNDLE is then a name or an id of it;
without one it is what runs there. What the device is like before, while it works, and afterwards
(temperature, throttling, memory, battery) goes into the run, as far as it can be read there.

examples:
  edge bench out/SmolLM2-135M-Instruct-gguf-q8_0
  edge bench out/* -o run.json
  edge bench BUNDLE --threads 1 --repeats 10 --json
  edge bench --on ssh://pi@raspberrypi -o run.json
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import edge
from edge import conditions, measurement, profile
from edge.commands import _progress
from edge.commands._places import Here, Place, There
from edge.commands._whole import write_whole
from edge.errors import UsageError
from edge.measurement import Measurement, Result, Run
from edge.progress import Progress
from edge.runtimes.cores import physical_cores

_BUSY = 0.5  # load average, for each core, above which a measurement is not of the model alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="*", help="folders that edge export made")
    parser.add_argument(
        "--on", metavar="DEVICE", help="measure what was flashed there: ssh://user@host, adb:SERIAL, ..."
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the run there, raw samples and all")
    parser.add_argument("--json", action="store_true", help="print the run as JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="fresh processes for each bundle (5)")
    parser.add_argument(
        "--prompt-tokens", type=_counts, default=(16, 128, 512), metavar="N,N", help="prompt lengths (16,128,512)"
    )
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="tokens of each answer (64)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: the physical cores")
    parser.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")


def run(args: argparse.Namespace) -> int:
    for name in ("repeats", "new_tokens"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more")
    if args.output and args.output.is_dir():
        raise UsageError(f"{args.output} is a folder", hint="give -o the name of a file, as run.json")
    if args.on is not None:
        return _show(args, _there(args))
    if not args.bundles:
        raise UsageError("which bundle?", hint="give its folder, or a device with --on")
    subjects = [_Subject(Here(folder), args) for folder in args.bundles]
    device = profile.this_machine()
    threads = args.threads or physical_cores()
    with _progress.shown(quiet=args.json) as progress:
        from edge.runtimes.meter import read_bandwidth_bytes_per_s

        progress.start("reading memory")
        machine = {"read_bandwidth_bytes_per_s": read_bandwidth_bytes_per_s(threads), "threads": threads}
        made = _measure(args, subjects, device.record(), device.logical_cores, machine, progress)
    return _show(args, made)


def _there(args: argparse.Namespace) -> Run:
    """As here, on a device. Its memory's speed is not measured: nothing but the worker runs there."""
    from edge.devices import book, facts, installed

    device = book.find([args.on])[0].connect()
    try:
        asked = facts.ask(device, device.python)
        wanted: list[str | None] = [installed.named(b) for b in args.bundles]
        subjects = [_Subject(There(device, asked, name), args) for name in wanted or [None]]
        with _progress.shown(quiet=args.json) as progress:
            return _measure(args, subjects, asked.record(), asked.profile.logical_cores, {}, progress)
    finally:
        device.close()


def _measure(
    args: argparse.Namespace, subjects: list[_Subject], device: dict[str, Any], cores: int,
    machine: dict[str, Any], progress: Progress,
) -> Run:  # fmt: skip
    """Every subject in turn, again and again; the run as it was asked for."""
    for subject in subjects:
        subject.before = subject.place.conditions()
    progress.start("measuring", args.repeats * len(subjects))
    for i in range(args.repeats):
        for j, subject in enumerate(subjects):
            subject.repeat()
            progress.advance(i * len(subjects) + j + 1)
    return Run(
        device=device,
        machine=machine,
        command=("edge", *sys.argv[1:]),
        taken_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        edge_version=edge.__version__,
        results=tuple(subject.result(cores) for subject in subjects),
    )


def _show(args: argparse.Namespace, made: Run) -> int:
    if args.output:
        write_whole(args.output, measurement.to_json(made))
    if args.json:
        print(measurement.to_json(made), end="")
    else:
        print(table(made))
    if any(result.emulated for result in made.results):
        print("edge: emulated: speeds say nothing about a real device", file=sys.stderr)
    for note in dict.fromkeys(n for r in made.results for n in r.notes):
        print(f"edge: {note}", file=sys.stderr)
    return 0


class _Subject:
    """One bundle and what was measured of it so far."""

    def __init__(self, place: Place, args: argparse.Namespace) -> None:
        self.place = place
        self._bundle = place.bundle
        limit = min(args.context or self._bundle.context_length, self._bundle.context_length)
        if args.new_tokens + 9 > limit:
            raise UsageError(f"{args.new_tokens} new tokens do not fit the context of {limit} tokens")
        self._lengths = [n for n in args.prompt_tokens if n <= limit]
        if not self._lengths:
            raise UsageError(f"no prompt length of {args.prompt_tokens} fits the context of {limit} tokens")
        self._request = {
            "threads": args.threads,
            "context": args.context,
            "prompt_tokens": self._lengths,
            "new_tokens": args.new_tokens,
        }
        self._cold: list[dict[str, Any]] = []
        self._warm: list[dict[str, Any]] = []
        self._during: list[dict[str, Any]] = []
        self.before = place.conditions()

    def repeat(self) -> None:
        self._cold.append(self.place.measure({**self._request, "load_only": True}))
        self._warm.append(found := self.place.measure({**self._request, "load_only": False}))
        # What the worker saw at the end of its work counts; the rest is asked right after it.
        seen = {key: value for key, value in found["conditions"].items() if value is not None}
        self._during.append({**self.place.conditions().record(), **seen})

    def result(self, logical_cores: int) -> Result:
        """Everything measured, as one frozen value."""
        after = self.place.conditions()
        last = self._warm[-1]
        taken = [
            Measurement("load_cold", "s", tuple(row["load_s"] for row in self._cold)),
            Measurement("load_warm", "s", tuple(row["load_s"] for row in self._warm)),
            *(
                Measurement(f"ttft_{n}", "ms", tuple(1e3 * row["prefill_s"][str(n)] for row in self._warm))
                for n in self._lengths
            ),
            *(
                Measurement(f"prefill_{n}", "tok/s", tuple(n / row["prefill_s"][str(n)] for row in self._warm))
                for n in self._lengths
            ),
            Measurement(
                "decode", "tok/s", tuple(1e3 * len(row["token_ms"]) / sum(row["token_ms"]) for row in self._warm)
            ),
            Measurement("inter_token", "ms", tuple(ms for row in self._warm for ms in row["token_ms"])),
            Measurement("peak_rss", "bytes", tuple(float(row["peak_rss_bytes"]) for row in self._warm)),
            Measurement("python_rss", "bytes", tuple(float(row["python_rss_bytes"]) for row in self._warm)),
        ]
        notes = []
        # The first conditions: what runs now is mostly the measurement itself.
        if (self.before.load_average or 0) > _BUSY * logical_cores:
            notes.append(f"the machine was busy (load {self.before.load_average}); measure again when it is idle")
        if not all(row["forgotten"] for row in self._cold):
            notes.append("this system cannot forget files in memory: cold loads are warm ones")
        notes += conditions.remarks(self.before.record(), [*self._during, after.record()])
        return Result(
            bundle={
                **{
                    key: getattr(self._bundle, key)
                    for key in ("name", "id", "family", "format", "quantization", "proven", "licence", "size_bytes")
                },
                **{key: dict(getattr(self._bundle, key) or {}) for key in ("memory", "source", "tools", "quality")},
                "kv_bytes": last["kv_bytes"],
            },
            runtime=last["runtime"],
            settings={
                "threads": last["threads"],
                "context_length": last["context_length"],
                "prompt_tokens": self._lengths,
                "new_tokens": self._request["new_tokens"],
            },
            before=self.before.record(),
            after=after.record(),
            during=tuple(self._during),
            measurements={m.name: m for m in taken},
            emulated=self.place.emulated,
            notes=tuple(notes),
        )


def table(made: Run) -> str:
    """One line for each bundle; medians, with the 95 % interval of the decoding speed."""
    head = ("bundle", "MB", "load cold / warm", "first token", "read", "answer", "p50 / p95 / p99", "peak RSS")
    rows = [head]
    for result in made.results:
        taken = result.measurements
        shortest, longest = min(result.settings["prompt_tokens"]), max(result.settings["prompt_tokens"])
        low, high = taken["decode"].interval()
        gaps = taken["inter_token"]
        rows.append(
            (
                f"{result.bundle['name']} {result.label}",
                f"{result.bundle['size_bytes'] / 1e6:.0f}",
                f"{taken['load_cold'].median:.2f} / {taken['load_warm'].median:.2f} s",
                f"{taken[f'ttft_{shortest}'].median:.0f} ms",
                f"{taken[f'prefill_{longest}'].median:.0f} tok/s",
                f"{taken['decode'].median:.1f} ({low:.1f}-{high:.1f}) tok/s",
                f"{gaps.percentile(50):.1f} / {gaps.percentile(95):.1f} / {gaps.percentile(99):.1f} ms",
                f"{taken['peak_rss'].median / 1e6:.0f} MB",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _counts(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError("a prompt has one token or more")
    return found
