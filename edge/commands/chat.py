"""Talk to a bundle, offline.

In a terminal it is a conversation: the answer streams, Ctrl-C stops it, /help lists the
commands. With -p, or when text is piped in, it answers once and prints the answer alone.

examples:
  edge chat out/SmolLM2-135M-Instruct-gguf-q4_k_m
  edge chat BUNDLE -p "What is the capital of France?" --temperature 0
  git diff | edge chat BUNDLE --system "Summarize this change in one sentence."
  edge chat BUNDLE --save talk.json          keep it; --resume talk.json goes on
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.runtimes.conversation import Conversation
    from edge.runtimes.session import Sampling

_PIPE_LIMIT_CHARACTERS = 4 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="answer this once; - reads it from stdin")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before everything else")
    parser.add_argument("--temperature", type=float, default=0.7, metavar="T", help="0 is greedy (default: 0.7)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="only the K likeliest tokens (default: all)")
    parser.add_argument("--top-p", type=float, default=0.95, metavar="P", help="only the likeliest that add up to P")
    parser.add_argument(
        "--min-p", type=float, default=0.0, metavar="P", help="only those at least P times the likeliest"
    )
    parser.add_argument("--repeat-penalty", type=float, default=1.1, metavar="R", help="1 is none (default: 1.1)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same answer every time (default: a fresh one)")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: the physical cores")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the conversation after every answer")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with a kept conversation")
    parser.add_argument("--check", action="store_true", help="hash every file of the bundle first")
    parser.add_argument("--json", action="store_true", help="print one JSON object: the answer and what it took")


def run(args: argparse.Namespace) -> int:
    from edge.runtimes.conversation import Conversation
    from edge.runtimes.model import open_bundle
    from edge.runtimes.session import Sampling

    greedy = args.temperature == 0
    sampling = Sampling(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        # Greedy means the model's own first choice, token by token.
        repeat_penalty=1.0 if greedy else args.repeat_penalty,
        seed=args.seed,
        max_tokens=args.max_tokens,
    )
    prompt = _prompt(args)
    if args.json and prompt is None:
        raise UsageError("--json answers once", hint="give the question with -p, or pipe it in")
    with open_bundle(args.bundle, threads=args.threads, context_length=args.context, check=args.check) as model:
        if not model.bundle.proven:
            print("edge: this bundle is unproven: it was exported with --no-gate", file=sys.stderr)
        conversation = Conversation(model)
        if args.resume and not conversation.load(args.resume):
            print("edge: this conversation was held with another bundle", file=sys.stderr)
        if args.system is not None:
            conversation.system = args.system
        if prompt is None:
            from edge.chat import terminal

            terminal.Chat(conversation, sampling, terminal.reader(_history()), save=args.save or args.resume).run()
            return 0
        return _once(conversation, prompt, sampling, args)


def _once(conversation: Conversation, prompt: str, sampling: Sampling, args: argparse.Namespace) -> int:
    """One answer: streamed to stdout, alone; or as JSON when it is complete."""
    from edge.chat.screen import printable

    pieces = []
    for piece in conversation.say(prompt, sampling):
        pieces.append(piece)
        if not args.json:
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
    if args.save:
        conversation.save(args.save)
    if not args.json:
        print()
        return 0
    stats = conversation.model.stats
    record = {
        "answer": "".join(p.text for p in pieces),
        "tokens": [p.token_id for p in pieces if p.token_id >= 0],
        "stats": dataclasses.asdict(stats) if stats else None,
        "dropped_turns": conversation.dropped,
        "bundle": conversation.model.bundle.name,
        "bundle_id": conversation.model.bundle.id,
        "proven": conversation.model.bundle.proven,
    }
    print(json.dumps(record, ensure_ascii=False, indent=2))
    return 0


def _prompt(args: argparse.Namespace) -> str | None:
    """What to answer once; `None` for a conversation in the terminal."""
    text: str | None = args.prompt
    if text == "-" or (text is None and not sys.stdin.isatty()):
        text = sys.stdin.read(_PIPE_LIMIT_CHARACTERS)
        if not text.strip():
            raise UsageError("nothing was piped in", hint='ask with: edge chat BUNDLE -p "..."')
    if text is not None and not text.strip():
        raise UsageError("the prompt is empty")
    return text


def _history() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "edge" / "chat-history"
