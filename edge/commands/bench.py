"""Measure bundles: loading, first token, reading, answering, memory.

Every repetition is a fresh process, and with several bundles they take turns, so that none of
them gets the quiet moments. Raw samples go into the run file; edge report makes a page of it.
Takes half a minute for a small model; --full measures longer prompts, deeper contexts and a
minute of lasting work.

First the machine is looked at: whether others work on it, whether it is slowed down or swaps.
When it is unfit, nothing is measured, unless with --force; then the run says so. What was
measured before Ctrl-C, or before a link broke, is kept and marked as incomplete.

With --act, a model that acts is measured while it does: requests that are always the same, in a place that is thrown
away, stage by stage: what is perceived, recalled, understood by the model, planned, and carried out.

With --on, what edge flash has put on a device is measured there. BUNDLE is then a name or an id of it;
without one it is what runs there. What the device is like before, while it works, and afterwards
(temperature, throttling, memory, battery) goes into the run, as far as it can be read there.

examples:
  edge bench out/SmolLM2-135M-Instruct-gguf-q8_0
  edge bench out/* -o run.json
  edge bench BUNDLE --until-stable 1 --json
  edge bench BUNDLE --sustain 600 -o hot.json
  edge bench BUNDLE --full --threads 1
  edge bench --on ssh://pi@raspberrypi -o run.json
  edge bench out/smollm2-act-gguf-q4_k_m --act
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge
from edge import measurement, profile
from edge.commands import _bench_table, _progress
from edge.commands._whole import write_whole
from edge.errors import DeviceError, EdgeError, UsageError
from edge.measurement import Run
from edge.progress import Progress

if TYPE_CHECKING:  # what measures is loaded when something is measured: every command's start passes here
    from edge.commands._subject import Subject

_PATIENCE_S = 20  # what an export has just done still runs for a moment
_FULL_SUSTAIN_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="*", help="folders that edge export made")
    parser.add_argument(
        "--on", metavar="DEVICE", help="measure what was flashed there: ssh://user@host, adb:SERIAL, ..."
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the run there, raw samples and all")
    parser.add_argument("--json", action="store_true", help="print the run as JSON instead of a table")
    parser.add_argument("--full", action="store_true", help="more lengths, depths and repetitions, and --sustain 60")
    parser.add_argument("--repeats", type=int, metavar="N", help="fresh processes for each bundle (5; --full: 10)")
    parser.add_argument(
        "--until-stable", type=float, metavar="PERCENT",
        help="repeat until the 95 %% interval of the answering speed is within this much of the median",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=30, metavar="N", help="repetitions --until-stable may take (30)")
    parser.add_argument(
        "--prompt-tokens", type=_counts, metavar="N,N", help="prompt lengths (16,128,512; --full: and 1024)"
    )
    parser.add_argument(
        "--depths", type=_counts, metavar="N,N",
        help="tokens in the context before an answer (the shortest prompt and 512; --full: and 1024, 1900)",
    )  # fmt: skip
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="tokens of each answer (64)")
    parser.add_argument("--sustain", type=float, metavar="SECONDS", help="then answer for so long without a pause")
    parser.add_argument("--act", action="store_true", help="how long requests to a model that acts take, by stage")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="default: as edge chat would take, else the physical cores"
    )
    parser.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")
    parser.add_argument("--force", action="store_true", help="measure a machine that is unfit; the run says so")


def run(args: argparse.Namespace) -> int:
    _complete(args)
    if args.output and args.output.is_dir():
        raise UsageError(f"{args.output} is a folder", hint="give -o the name of a file, as run.json")
    if args.on is not None:
        return _there(args)
    if not args.bundles:
        raise UsageError("which bundle?", hint="give its folder, or a device with --on")
    from edge.commands._places import Here

    device = profile.this_machine()
    places = [Here(folder) for folder in args.bundles]
    return _measured(args, places, device.record(), device.logical_cores)


def _complete(args: argparse.Namespace) -> None:
    """Fill in what depends on --full, and refuse what makes no sense."""
    if args.repeats is None:
        args.repeats = 10 if args.full else 5
    if args.prompt_tokens is None:
        args.prompt_tokens = (16, 128, 512, 1024) if args.full else (16, 128, 512)
    if args.depths is None:
        args.depths = (512, 1024, 1900) if args.full else (512,)
    if args.sustain is None and args.full:
        args.sustain = _FULL_SUSTAIN_S
    for name in ("repeats", "new_tokens", "most", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be 1 or more")
    for name in ("sustain", "until_stable"):
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0")
    if args.act and (args.full or args.sustain is not None or args.until_stable is not None):
        raise UsageError("--act has requests of its own", hint="--full, --sustain and --until-stable go without it")
    if args.until_stable is not None and args.most < args.repeats:
        raise UsageError(f"--most {args.most} is less than --repeats {args.repeats}")


def _there(args: argparse.Namespace) -> int:
    """As here, on a device."""
    from edge.commands._places import There
    from edge.devices import book, facts, installed

    device = book.find([args.on])[0].connect()
    try:
        asked = facts.ask(device, device.python)
        wanted: list[str | None] = [installed.named(b) for b in args.bundles]
        places = [There(device, asked, name) for name in wanted or [None]]
        return _measured(args, places, asked.record(), asked.profile.logical_cores)
    finally:
        device.close()


def _measured(args: argparse.Namespace, places: list[Any], device: dict[str, Any], cores: int) -> int:
    """Measure every bundle in turn, and show what came out; what stops it halfway comes after that."""
    from edge.commands._act_table import ActSubject
    from edge.commands._subject import Subject

    subjects = [(ActSubject if args.act else Subject)(place, args) for place in places]
    taken_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stopped: BaseException | None = None
    with _progress.shown(quiet=args.json) as progress:
        machine = _fit(args, subjects, cores, progress)

        def made(*, complete: bool) -> Run:
            results = [found for subject in subjects if (found := subject.result()) is not None]
            return Run(
                device=device,
                machine=machine,
                command=("edge", *sys.argv[1:]),
                taken_at=taken_at,
                edge_version=edge.__version__,
                results=tuple(results),
                complete=complete,
            )

        try:
            _repeat(args, subjects, progress, lambda: _keep(args, made(complete=False)))
        except (EdgeError, KeyboardInterrupt) as err:
            stopped = err
            if made(complete=False).results:
                for subject in subjects:
                    subject.note(f"cut short: {_reason(err)}")
        run = made(complete=stopped is None)
    if run.results:
        _show(args, run)
    if stopped is not None:
        raise stopped
    return 0


def _fit(args: argparse.Namespace, subjects: list[Subject], cores: int, progress: Progress) -> dict[str, Any]:
    """Wait for a moment until the machine is quiet; its measured facts. Raises `DeviceError` for one that is unfit."""
    progress.start("looking at the machine")
    until = time.monotonic() + (0 if args.force else _PATIENCE_S)
    while True:
        found = subjects[0].fitness(cores, bandwidth=True)
        # What lasts will not pass by waiting.
        if not found.against or set(found.against) - set(found.passing) or time.monotonic() > until:
            break
    for subject in subjects[1:]:
        more = subject.fitness(cores, bandwidth=False)
        found = more if set(more.against) - set(more.passing) else found
    if found.against and not args.force:
        raise DeviceError(
            f"the machine is unfit to be measured: {'; '.join(found.against)}",
            hint="wait, or end what else runs there; --force measures nevertheless, and the run says so",
        )
    probed = subjects[0].probed
    return {key: probed[key] for key in ("read_bandwidth_bytes_per_s", "threads") if key in probed}


def _repeat(args: argparse.Namespace, subjects: list[Subject], progress: Progress, keep: Any) -> None:
    most = args.most if args.until_stable is not None else args.repeats
    progress.start("measuring", most * len(subjects))
    for i in range(most):
        for j, subject in enumerate(subjects):
            subject.repeat()
            progress.advance(i * len(subjects) + j + 1)
        keep()
        if args.until_stable is not None and i + 1 >= args.repeats and all(_stable(s, args) for s in subjects):
            break
    for subject in subjects:
        if args.until_stable is not None:
            good = "stable" if _stable(subject, args) else "not stable"
            subject.note(f"{good} within {args.until_stable:g} % after {i + 1} repetitions")
    if args.sustain is not None:
        for subject in subjects:
            progress.start(f"answering for {args.sustain:g} s without a pause")
            subject.sustain(args.sustain)


def _stable(subject: Subject, args: argparse.Namespace) -> bool:
    taken = subject.decode
    if taken is None or taken.n_repetitions < measurement.FEWEST:
        return False
    low, high = taken.interval()
    return max(high - taken.median, taken.median - low) <= args.until_stable / 100 * taken.median


def _keep(args: argparse.Namespace, made: Run) -> None:
    if args.output and made.results:
        write_whole(args.output, measurement.to_json(made))


def _show(args: argparse.Namespace, made: Run) -> None:
    _keep(args, made)
    if args.json:
        print(measurement.to_json(made), end="")
    elif args.act:
        from edge.commands import _act_table

        print(_act_table.table(made))
    else:
        print(_bench_table.table(made))
    if any(result.emulated for result in made.results):
        print("edge: emulated: speeds say nothing about a real device", file=sys.stderr)
    for result in made.results:
        for note in result.notes:
            # What is said of one bundle alone needs its name.
            common = all(note in other.notes for other in made.results)
            alike = [other for other in made.results if other.label == result.label]
            name = result.label if len(alike) == 1 else f"{result.bundle.get('name')} {result.label}"
            if not common or result is made.results[0]:
                print(f"edge: {note}" if common else f"edge: {name}: {note}", file=sys.stderr)


def _reason(err: BaseException) -> str:
    return err.message if isinstance(err, EdgeError) else "it was stopped"


def _counts(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError("a prompt has one token or more")
    return found
