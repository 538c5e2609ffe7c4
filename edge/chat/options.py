"""How an answer is drawn, from the command line, the model's own wishes and our defaults."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from edge.runtimes import wishes
from edge.runtimes.session import Sampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the answer is drawn (default: as the model's generation_config.json says)")
    group.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (else 0.7)")
    group.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens (else all)")
    group.add_argument("--top-p", type=float, metavar="P", help="only the likeliest that add up to P (else 0.95)")
    group.add_argument("--min-p", type=float, metavar="P", help="only those at least P times the likeliest (else 0)")
    group.add_argument("--repeat-penalty", type=float, metavar="R", help="1 is none (else 1.1; greedy: 1)")
    group.add_argument("--seed", type=int, metavar="N", help="draw the same answer every time (default: a fresh seed)")
    group.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")


def sampling(args: argparse.Namespace, folder: Path) -> Sampling:
    """What was given, over what the model wishes, over our defaults.

    Greedy means the model's own first choice: no penalty then, unless one was asked for.
    Always with a seed, so that an answer can be had again. Raises `UsageError` for values that
    make no sense.
    """
    given = {name: value for name in wishes.NAMES if (value := getattr(args, name)) is not None}
    chosen = wishes.with_given(given, wishes.read(folder))
    seed = secrets.randbits(32) if args.seed is None else args.seed
    return Sampling(**chosen, seed=seed, max_tokens=args.max_tokens)
