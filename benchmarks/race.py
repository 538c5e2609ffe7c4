"""Contestants take turns in fresh processes; every sample is kept, and the claim is a ratio of one run."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from edge import profile
from edge.runtimes.cores import physical_cores

RESULTS = Path(__file__).parent / "results"
_PATIENCE_S = 180
_BUSY = 0.5  # load average for each core above which the numbers are not the contestants' alone
_LIBRARIES = (
    "edge-deploy", "llama-cpp-python", "onnxruntime", "onnxruntime-genai", "ai-edge-litert", "litert-lm", "torch",
)  # fmt: skip


@dataclass(frozen=True)
class Contestant:
    """A program that measures one thing and prints one JSON object of numbers on its last line."""

    name: str
    argv: tuple[str, ...]
    about: str = ""


@dataclass(frozen=True)
class Claim:
    """`ours` over `theirs` of one quantity must reach `at_least` (or stay below `at_most`).

    With `fixed`, ours is compared with that figure, of the quantity's unit, and `theirs` says in a word what it is.
    """

    quantity: str
    ours: str
    theirs: str
    at_least: float | None = None
    at_most: float | None = None
    says: str = ""
    fixed: float | None = None


@dataclass
class Race:
    """What was run and what came out, ready for JSON."""

    question: str
    contestants: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    load_before: float | None = None


def run(question: str, contestants: Sequence[Contestant], *, rounds: int, turns: str = "forward and back") -> Race:
    """Let every contestant run `rounds` times, in turns: A B, B A, A B, ...

    Raises `RuntimeError` with the last words of a contestant that fails.
    """
    race = Race(question, {c.name: c.about for c in contestants}, load_before=settled())
    for i in range(rounds):
        order = list(contestants) if i % 2 == 0 else list(reversed(contestants))
        for contestant in order:
            race.samples.setdefault(contestant.name, []).append(once(contestant))
            print(
                f"  round {i + 1}/{rounds}  {contestant.name}: {_short(race.samples[contestant.name][-1])}", flush=True
            )
    return race


def settled() -> float | None:
    """The load average, once what ran before has left it, or after `_PATIENCE_S`: `busy` says which."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        load = profile.conditions().load_average
        if load is None or not is_busy(load) or time.monotonic() > until:
            return load
        time.sleep(2)


def is_busy(load: float) -> bool:
    """Whether something else has been running."""
    return load > _BUSY * profile.this_machine().logical_cores


def once(contestant: Contestant) -> dict[str, float]:
    """One fresh process; its numbers."""
    done = subprocess.run(
        contestant.argv,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=1800,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{contestant.name} failed ({done.returncode}): {(done.stderr or done.stdout)[-1500:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def judge(race: Race, claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Each claim with its ratio: the median over rounds of ours/theirs, and the smallest and largest."""
    out = []
    for claim in claims:
        ours = [s[claim.quantity] for s in race.samples[claim.ours]]
        if claim.fixed is None:
            theirs = [s[claim.quantity] for s in race.samples[claim.theirs]]
        else:
            theirs = [claim.fixed] * len(ours)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = statistics.median(ratios)
        met = (claim.at_least is None or ratio >= claim.at_least) and (claim.at_most is None or ratio <= claim.at_most)
        out.append(
            {
                "says": claim.says,
                "quantity": claim.quantity,
                "ours": claim.ours,
                "theirs": claim.theirs,
                "median_ours": statistics.median(ours),
                "median_theirs": statistics.median(theirs),
                "ratio": round(ratio, 4),
                "ratio_low": round(min(ratios), 4),
                "ratio_high": round(max(ratios), 4),
                "at_least": claim.at_least,
                "at_most": claim.at_most,
                "met": met,
            }
        )
    return out


def keep(name: str, race: Race, claims: list[dict[str, Any]], words: Sequence[str] | None = None) -> int:
    """Write `results/<name>.json`, print the verdict; 0 when every claim is met.

    `words` are those of the command that say what was measured (default: all of them).
    """
    device = profile.this_machine()
    busy = is_busy(race.load_before or 0)
    record = {
        "question": race.question,
        "claims": claims,
        "contestants": race.contestants,
        "samples": race.samples,
        "machine": device.record(),
        "load_before": race.load_before,
        "busy": busy,
        "versions": _versions(),
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", f"benchmarks.{name}", *(sys.argv[1:] if words is None else words)],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(race.question)
    if busy:
        print(f"  the machine was busy (load {race.load_before}): measure again when it is idle")
    for claim in claims:
        bound = f">= {claim['at_least']}" if claim["at_least"] is not None else f"<= {claim['at_most']}"
        verdict = "met" if claim["met"] else "NOT MET"
        print(
            f"  {claim['says'] or claim['quantity']}: {claim['ratio']:.3f} "
            f"({claim['ratio_low']:.3f} to {claim['ratio_high']:.3f}), wanted {bound}: {verdict}"
        )
    return 0 if all(c["met"] for c in claims) else 1


def arguments(about: str | None, *, rounds: int = 9) -> argparse.ArgumentParser:
    """The options that every question has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"turns of each ({rounds})")
    parser.add_argument("--threads", type=int, default=physical_cores(), metavar="N", help="default: physical cores")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="tokens to decode (256)")
    return parser


def bundle(source: str, format_name: str, quantization: str, also: Sequence[str] = (), kv: str | None = None) -> Path:
    """The bundle to race with, exported (from the cache if it can be) without the gate: the file is what counts."""
    from edge.export import cache
    from edge.export.pipeline import export

    root = cache.root() / "benchmarks"
    [done] = export(
        source,
        root,
        formats=[format_name],
        quantization=quantization,
        gate=False,
        replace_existing=True,
        also=also,
        kv=kv,
    )
    return done.folder


def contestant(module: str, *words: object) -> tuple[str, ...]:
    """The command of a contestant written in Python."""
    return (sys.executable, "-m", f"benchmarks.contestants.{module}", *map(str, words))


def _short(sample: Mapping[str, float]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in sample.items())


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
