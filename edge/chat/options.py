"""How an answer is drawn, from the command line, the model's own wishes and our defaults."""

from __future__ import annotations

import argparse
import math
import secrets
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.runtimes.session import Sampling

_DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95, "repeat_penalty": 1.1}
# Our name -> the name in generation_config.json
_WISHES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}


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
    given = {name: value for name in _WISHES if (value := getattr(args, name)) is not None}
    if given.get("temperature") == 0:
        chosen = {"temperature": 0.0, **given}
    else:
        chosen = {**_DEFAULTS, **_wishes(folder), **given}
    seed = secrets.randbits(32) if args.seed is None else args.seed
    return Sampling(**chosen, seed=seed, max_tokens=args.max_tokens)


def _wishes(folder: Path) -> dict[str, Any]:
    """What generation_config.json says of sampling, as far as it makes sense."""
    from edge.runtimes.tokenizer import read_config

    config = read_config(folder / "generation_config.json")
    found: dict[str, Any] = {}
    for ours, theirs in _WISHES.items():
        value = config.get(theirs)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        one: dict[str, Any] = {ours: int(value) if ours == "top_k" else float(value)}
        try:
            Sampling(**one)
        except EdgeError:
            continue
        found.update(one)
    return found
