"""Let a bundle act, offline and within bounds: say what is wanted, and which tools it may use.

What is planned is shown before anything is done. Nothing is done unasked but reading, and that only
with --yes-to read; where nobody can be asked, the answer is no. What a tool or a file says fills
values of the plan and is shown; it chooses nothing. --dry-run shows what would happen, and does nothing.

Without a request it is a session: in a terminal with /help, otherwise a request a line.

With --on, all of that happens on a device that edge flash has put a bundle on, with the tools there. The manifest
goes along, and questions come here. BUNDLE is then its folder here, its name or its id; without one, what runs there.

examples:
  edge act out/smollm2-act-gguf-q4_k_m "list my files" --tools files:notes --yes-to read
  edge act BUNDLE "move todo.txt to old.txt and delete draft.txt" --tools files:notes
  edge act BUNDLE "turn off the hall light" --tools home.toml --dry-run
  edge act BUNDLE "append it to log.txt" --file letter.txt --tools files:notes
  edge act BUNDLE "note it down" --image door.png --seen-by out/smollm2-vision-gguf-q8_0 --tools notes
  edge act BUNDLE "what is in todo.txt" --tools files:notes --yes-to read --json
  edge act BUNDLE --tools home.toml --tools files:notes
  edge act BUNDLE --tools home.toml --resume 5f0c2a9be871
  edge act "turn on the lamp" --tools gpio --on ssh://pi@raspberrypi
  edge act --memory list
  edge act --memory edit 3 "my car is on level 4"
  edge act --memory forget 3
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError, require

if TYPE_CHECKING:
    from edge.devices.device import Device
    from edge.runtimes.act.hands import Hands
    from edge.runtimes.act.manifest import Manifest, Source
    from edge.runtimes.act.perception import Given
    from edge.runtimes.act.policy import Policy
    from edge.runtimes.model import Model

_UNPROVEN = "edge: this bundle is unproven: it was never compared with its source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a folder that edge export made")
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="what is wanted; without it, a session")
    parser.add_argument("--on", metavar="DEVICE", help="act where it was flashed: ssh://user@host, adb:SERIAL, ...")
    parser.add_argument(
        "--tools", action="append", default=[], metavar="FILE",
        help="a manifest of tools (home.toml), or built-in ones (files:FOLDER); may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--file", type=Path, action="append", default=[], metavar="FILE", help='a text that "it" or "this file" means'
    )
    parser.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE", help="the same with what is in a picture"
    )
    parser.add_argument("--seen-by", type=Path, metavar="BUNDLE", help="who looks at pictures, if BUNDLE does not see")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--yes-to", action="append", default=[], metavar="RISK", help="what may be done unasked: read")
    parser.add_argument("--json", action="store_true", help="print one JSON object: plan, steps, answer, times")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was interrupted; nothing is done twice")
    group = parser.add_argument_group("memory")
    group.add_argument("--no-memory", action="store_true", help="recall nothing and remember nothing")
    group.add_argument("--memory", nargs="+", metavar="WORD", help="list, edit N TEXT, forget N, forget all")
    group = parser.add_argument_group("bounds of one request")
    group.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="tokens it may write (default: 2048)")
    group.add_argument("--max-seconds", type=float, default=300.0, metavar="S", help="time it may take (default: 300)")
    group = parser.add_argument_group("how the model runs")
    group.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")
    group.add_argument("--threads", type=int, metavar="N", help="default: what is fastest here, tried once")
    group.add_argument("--no-check", action="store_true", help="do not compare the files with the manifest")
    _wherever(parser)


def _wherever(parser: argparse.ArgumentParser) -> None:
    """Let the request stand behind options too: argparse takes words that may be left out only side by side."""

    def known(args: Any = None, namespace: Any = None) -> Any:
        del parser.__dict__["parse_known_args"]
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.__dict__["parse_known_args"] = known

    parser.__dict__["parse_known_args"] = known


def run(args: argparse.Namespace) -> int:
    from edge.chat import acting

    if args.memory is not None:
        if args.request is not None:
            raise UsageError("--memory stands alone: it takes no request")
        acting.listed(_remembered(args))
        return 0
    _check(args)
    from edge.runtimes.act import manifest
    from edge.runtimes.act.policy import Policy

    # What makes no sense is said before a model is loaded, or a device is reached for.
    sources = [manifest.find(source) for source in args.tools]
    tools = manifest.join([manifest.read(source) for source in args.tools])
    policy = Policy(frozenset(args.yes_to), dry_run=args.dry_run)
    return _there(args, sources, tools) if args.on is not None else _here(args, tools, policy)


def _check(args: argparse.Namespace) -> None:
    if args.on is not None and args.request is None and len((args.bundle or "").split()) > 1:
        args.bundle, args.request = None, args.bundle  # a wish, to what runs there
    if args.bundle is None and args.on is None:
        raise UsageError("which bundle?", hint='act with: edge act BUNDLE "what is wanted" --tools FILE')
    if not args.tools:
        raise UsageError("it has no tools", hint="give a manifest, or built-in ones: --tools files:FOLDER")
    if args.request is not None and not args.request.strip():
        raise UsageError("the request is empty")
    if args.resume and args.request:
        raise UsageError("--resume goes on with the request of that run", hint="leave the request out")
    if args.json and args.request is None and not args.resume:
        raise UsageError("--json is for one request", hint='give it: edge act BUNDLE "what is wanted" --json')
    for name in ("max_tokens", "max_seconds"):
        if getattr(args, name) <= 0:
            raise UsageError(f"--{name.replace('_', '-')} must be above 0")
    if args.seen_by is not None and not args.image:
        raise UsageError("--seen-by looks at pictures, and none was given", hint="give one: --image FILE")
    for path in args.image:
        if not path.expanduser().is_file():
            raise UsageError(f"there is no file {path}")


def _here(args: argparse.Namespace, tools: Manifest, policy: Policy) -> int:
    from edge.chat import acting
    from edge.runtimes import threads
    from edge.runtimes.act import memory as memories
    from edge.runtimes.act.hands import Hands, state_folder
    from edge.runtimes.act.intent import Budget
    from edge.runtimes.act.memory import Memory
    from edge.runtimes.act.mind import Mind
    from edge.runtimes.act.person import at_terminal
    from edge.runtimes.act.record import record
    from edge.runtimes.model import open_bundle

    stop, folder = acting.Stop(), Path(args.bundle)
    given = _given(args)
    if args.threads is None:
        threads.once(folder, check=not args.no_check)
    with (
        open_bundle(folder, threads=args.threads, context_length=args.context, check=not args.no_check) as model,
        Hands(tools, policy, ask=stop.around(at_terminal()), run=args.resume) as hands,
    ):
        memory = None if args.no_memory else Memory(state_folder() / "memory.db")
        if not model.bundle.proven:
            acting.note(_UNPROVEN)
        request = _request(args, hands)
        read = _reader()
        mind = Mind(
            model, hands, memory=memory, stopped=stop, tell=acting.note,
            ask=stop.line(read) if _is_session(args) or sys.stdin.isatty() else lambda question: None,
            budget=lambda: Budget(args.max_tokens, args.max_seconds),
        )  # fmt: skip
        if args.seen_by is None:
            given.extend(_looked(args.image, model))

        def act(wanted: str) -> dict[str, Any]:
            report = mind.act(wanted, given)
            given.clear()  # what comes with a session comes with its first request
            return record(report, model.bundle, hands.run)

        if _is_session(args):
            _greet(model.bundle.name, len(tools.tools), "offline")
            remember = None if memory is None else lambda words: memories.obey(memory, words)
            return 0 if acting.Session(act, tools, stop, read, remember).run() else 1
        with stop.watching():
            return _shown(args, act(request))


def _there(args: argparse.Namespace, sources: list[Source], tools: Manifest) -> int:
    """As here, on a device: there is the model, there are the tools, and what is kept."""
    from edge.chat import acting
    from edge.devices.acting import Acting, Wishes
    from edge.runtimes.act.person import at_terminal

    stop, read = acting.Stop(), _reader()
    given, pictures = _given(args), [] if args.seen_by is not None else list(args.image)
    wishes = Wishes(
        tuple(args.yes_to), args.dry_run, not args.no_memory, args.resume, args.max_tokens, args.max_seconds,
        args.threads, args.context,
    )  # fmt: skip
    with (
        _device(args) as (device, wanted),
        Acting(
            device, wanted, sources, wishes, ask=stop.around(at_terminal()), tell=acting.note, stopped=stop,
            reply=stop.line(read) if _is_session(args) or sys.stdin.isatty() else None,
        ) as there,
    ):  # fmt: skip
        opened = there.opened
        if not opened["proven"]:
            acting.note(_UNPROVEN)
        for number, tool, state in opened["before"]:
            acting.note(f"  {number}. {tool} {state}")
        if opened["waiting"] and not args.resume:
            acting.note(f"edge: {_interrupted(**opened['waiting'])}")

        def act(wanted: str) -> dict[str, Any]:
            report = there.act(wanted, given, pictures)
            given.clear()
            pictures.clear()
            return report

        if _is_session(args):
            _greet(opened["name"], opened["tools"], f"on {device.address}")
            remember = None if args.no_memory else there.remembered
            return 0 if acting.Session(act, tools, stop, read, remember).run() else 1
        with stop.watching():
            return _shown(args, act(opened["request"] or args.request))


def _given(args: argparse.Namespace) -> list[Given]:
    """Files, and pictures that another bundle looks at: it is closed before the one that acts is opened."""
    from edge.chat import acting
    from edge.runtimes.act import perception
    from edge.runtimes.model import open_bundle

    given = [perception.of_file(path) for path in args.file]
    if args.seen_by is not None:
        with open_bundle(args.seen_by, threads=args.threads, check=not args.no_check) as model:
            if not model.bundle.proven:
                acting.note(_UNPROVEN.replace("this bundle", model.bundle.name))
            given += _looked(args.image, model)
    return given


def _looked(pictures: Sequence[Path], model: Model) -> list[Given]:
    """What the model sees in them; the person is told, because it may be wrong and it fills values."""
    from edge.chat import acting
    from edge.runtimes.act import perception
    from edge.runtimes.act.words import for_person

    seen = []
    for path in pictures:
        seen.append(perception.of_picture(path, model))
        acting.note(f"seen in {path.name}: {for_person(seen[-1].text)}")
    return seen


@contextmanager
def _device(args: argparse.Namespace) -> Iterator[tuple[Device, str | None]]:
    """What --on means, and which bundle there."""
    require("edge.devices", extra="act", purpose="reaching for a device")
    from edge.devices import book, installed

    [target] = book.find([args.on])
    wanted = None if args.bundle is None else installed.named(args.bundle)
    device = target.connect()
    try:
        yield device, wanted
    finally:
        device.close()


def _remembered(args: argparse.Namespace) -> list[str]:
    if args.on is not None:
        from edge.devices.acting import remembered

        with _device(args) as (device, _):
            return remembered(device, args.memory)
    from edge.runtimes.act.hands import state_folder
    from edge.runtimes.act.memory import Memory, obey

    return obey(Memory(state_folder() / "memory.db"), args.memory)


def _is_session(args: argparse.Namespace) -> bool:
    return args.request is None and not args.resume


def _reader() -> Callable[[str], str]:
    from edge.chat import line

    words = ("/help", "/tools", "/memory", "/edit", "/forget", "/quit")
    return line.reader(words, line.history_file().with_name("act-history"))[0]


def _greet(name: str, n_tools: int, how: str) -> None:
    from edge.chat import acting

    if sys.stdin.isatty():
        acting.note(f"{name} with {n_tools} tools, {how}. /help lists the commands.")


def _request(args: argparse.Namespace, hands: Hands) -> str:
    """What is wanted: said now, or by a run that was interrupted. Says which runs wait for that."""
    from edge.chat import acting

    if args.resume:
        if (request := hands.journal.request(args.resume)) is None:
            raise UsageError(f"there is no run {args.resume}", hint=_waiting(hands) or "none was interrupted")
        for step in hands.before():
            acting.note(f"  {step.step + 1}. {step.tool} {step.state}")
        return str(request)
    if waiting := _waiting(hands):
        acting.note(f"edge: {waiting}")
    return args.request or ""


def _waiting(hands: Hands) -> str:
    runs = hands.journal.unfinished()
    return _interrupted(runs[-1], hands.journal.request(runs[-1])) if runs else ""


def _interrupted(run: str, request: str | None) -> str:
    return f"interrupted: {request!r}; go on with --resume {run}"


def _shown(args: argparse.Namespace, report: Mapping[str, Any]) -> int:
    from edge.chat import acting

    if args.json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        acting.show(report)
    return 0 if report["whole"] else 1
