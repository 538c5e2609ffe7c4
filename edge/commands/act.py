"""Let a bundle act, offline and within bounds: say what is wanted, and which tools it may use.

What is planned is shown before anything is done. Nothing is done unasked but reading, and that only
with --yes-to read; where nobody can be asked, the answer is no. What a tool or a file says fills
values of the plan and is shown; it chooses nothing. --dry-run shows what would happen, and does nothing.

Without a request it is a session: in a terminal with /help, otherwise a request a line.

examples:
  edge act out/smollm2-act-gguf-q4_k_m "list my files" --tools files:notes --yes-to read
  edge act BUNDLE "move todo.txt to old.txt and delete draft.txt" --tools files:notes
  edge act BUNDLE "turn off the hall light" --tools home.toml --dry-run
  edge act BUNDLE "append it to log.txt" --file letter.txt --tools files:notes
  edge act BUNDLE "what is in todo.txt" --tools files:notes --yes-to read --json
  edge act BUNDLE --tools home.toml --tools files:notes
  edge act BUNDLE --tools home.toml --resume 5f0c2a9be871
  edge act --memory list
  edge act --memory edit 3 "my car is on level 4"
  edge act --memory forget 3
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.runtimes.act.mind import Report
    from edge.runtimes.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, nargs="?", help="a folder that edge export made")
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="what is wanted; without it, a session")
    parser.add_argument(
        "--tools", action="append", default=[], metavar="FILE",
        help="a manifest of tools (home.toml), or built-in ones (files:FOLDER); may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--file", type=Path, action="append", default=[], metavar="FILE", help='a text that "it" or "this file" means'
    )
    parser.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE", help="the same with a picture, if it sees"
    )
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
    from edge.runtimes.act.hands import state_folder
    from edge.runtimes.act.memory import Memory

    state = state_folder()
    if args.memory is not None:
        if args.bundle is not None:
            raise UsageError("--memory stands alone: it needs no bundle")
        acting.remembered(Memory(state / "memory.db"), args.memory)
        return 0
    _check(args)
    from edge.runtimes import threads
    from edge.runtimes.act import manifest
    from edge.runtimes.act.policy import Policy
    from edge.runtimes.model import open_bundle

    # What makes no sense is said before a model is loaded.
    tools = manifest.join([manifest.read(source) for source in args.tools])
    policy = Policy(frozenset(args.yes_to), dry_run=args.dry_run)
    if args.threads is None:
        threads.once(args.bundle, check=not args.no_check)
    with open_bundle(args.bundle, threads=args.threads, context_length=args.context, check=not args.no_check) as model:
        memory = None if args.no_memory else Memory(state / "memory.db")
        return _act(args, model, tools, policy, memory)


def _check(args: argparse.Namespace) -> None:
    if args.bundle is None:
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


def _act(args: argparse.Namespace, model: Model, tools: Any, policy: Any, memory: Any) -> int:
    from edge.chat import acting, line
    from edge.runtimes.act import perception
    from edge.runtimes.act.hands import Hands
    from edge.runtimes.act.intent import Budget
    from edge.runtimes.act.mind import Mind
    from edge.runtimes.act.person import at_terminal

    if not model.bundle.proven:
        acting.note("edge: this bundle is unproven: it was never compared with its source")
    given = [perception.of_file(path) for path in args.file]
    given += [perception.of_picture(path, model) for path in args.image]
    stop = acting.Stop()
    session = args.request is None and not args.resume
    words = ("/help", "/tools", "/memory", "/edit", "/forget", "/quit")
    read, _ = line.reader(words, line.history_file().with_name("act-history"))
    with Hands(tools, policy, ask=stop.around(at_terminal()), run=args.resume) as hands:
        request = _request(args, hands)
        mind = Mind(
            model, hands, memory=memory, stopped=stop, tell=acting.note,
            ask=stop.line(read) if session or sys.stdin.isatty() else lambda question: None,
            budget=lambda: Budget(args.max_tokens, args.max_seconds),
        )  # fmt: skip
        if session:
            if sys.stdin.isatty():
                acting.note(f"{model.bundle.name} with {len(tools.tools)} tools, offline. /help lists the commands.")
            return 0 if acting.Session(mind, stop, read, memory).run(given) else 1
        with stop.watching():
            report = mind.act(request, given)
    if args.json:
        sys.stdout.write(json.dumps(_record(report, model, hands.run), ensure_ascii=False) + "\n")
    else:
        acting.show(report)
    return 0 if report.whole else 1


def _request(args: argparse.Namespace, hands: Any) -> str:
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


def _waiting(hands: Any) -> str:
    runs = hands.journal.unfinished()
    if not runs:
        return ""
    return f"interrupted: {hands.journal.request(runs[-1])!r}; go on with --resume {runs[-1]}"


def _record(report: Report, model: Model, run: str) -> dict[str, Any]:
    steps: Sequence[Any] = report.steps
    return {
        "request": report.request,
        "whole": report.whole,
        "answer": report.answer,
        "steps": [
            {
                "number": d.step.number, "tool": d.step.tool, "arguments": dict(d.step.arguments),
                "open": dict(d.step.open), "status": d.status, "would": d.outcome.would if d.outcome else "",
                "reason": d.outcome.reason if d.outcome else d.why, "text": d.outcome.text if d.outcome else "",
                "origin": d.outcome.origin if d.outcome else "user",
                "duration_ms": d.outcome.duration_ms if d.outcome else 0.0,
            }
            for d in steps
        ],
        "impossible": report.impossible,
        "unsaid": report.unsaid,
        "tokens": report.tokens,
        "stages_ms": report.stages_ms,
        "run": run,
        "bundle": {"name": model.bundle.name, "id": model.bundle.id, "format": model.bundle.format},
    }  # fmt: skip
