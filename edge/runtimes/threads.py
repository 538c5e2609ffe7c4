"""How many threads a bundle answers fastest with on this machine: tried once, for two seconds, and remembered.

The physical cores are right on most machines. They are not on a phone, whose slow cores hold up its fast ones, nor
where two threads of one core do more than one.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.find import load
from edge.runtimes import integrity, noted
from edge.runtimes.cores import physical_cores
from edge.runtimes.session import Sampling, generate

BUDGET_S = 2.0
_LEAST_TOKENS, _MOST_TOKENS = 6, 40
_SLOW_LOAD_S = 4.0  # whoever waits this long for a model once does not wait for it three times
_GAIN = 0.95  # a count must take less than this share of the default's time: less is chance
_PROMPT = tuple(range(1, 9))


@dataclass(frozen=True)
class Trial:
    """What was tried: threads -> median milliseconds per token; and which count is used from now on."""

    threads: int
    default: int
    ms_per_token: dict[int, float]


def candidates(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[int, ...]:
    """Counts worth trying, the default (the physical cores) first.

    The logical cores too, half of many cores, and of unlike cores the fast ones alone, then with the next fastest.
    """
    default, allowed = physical_cores(), noted.allowed_cpus()
    found = [default]
    speeds = sorted((_speed(cpus, cpu) for cpu in allowed), reverse=True)
    if 0 not in speeds:
        found += list(itertools.accumulate(len(list(group)) for _, group in itertools.groupby(speeds)))
    found.append(len(allowed))
    if default >= 8:
        found.append(default // 2)
    return tuple(dict.fromkeys(n for n in found if n > 1 or n == default))


def remembered(bundle: Bundle) -> int | None:
    """What a trial on this machine, with this runtime, found for this bundle."""
    found = noted.read(_note(bundle)).get("threads")
    return found if isinstance(found, int) and 0 < found <= len(noted.allowed_cpus()) else None


def default(bundle: Bundle) -> int:
    """What a bundle runs on when nobody says otherwise."""
    return remembered(bundle) or physical_cores()


def once(folder: Path, *, check: bool = True) -> Trial | None:
    """`find`, unless it was tried before or there is nothing to choose; who waits at a terminal is told why.

    Raises as `edge.runtimes.model.open_bundle` does for a bundle that cannot be opened.
    """
    bundle = bundles.read(folder)
    counts = worth_trying(bundle)
    if not counts:
        return None
    if check:
        integrity.check(folder, bundle)
    if sys.stderr.isatty():
        listed = ", ".join(map(str, sorted(counts)))
        sys.stderr.write(f"trying {listed} threads, once for this bundle on this machine ...\n")
    return find(folder, bundle)


def worth_trying(bundle: Bundle) -> tuple[int, ...]:
    """The counts that `find` would try; none where one is sure, or it was tried before."""
    if bundle.context_length < len(_PROMPT) + _LEAST_TOKENS or bundle.vocab_size <= max(_PROMPT):
        return ()  # too little to try anything with
    counts = candidates()
    return counts if len(counts) > 1 and remembered(bundle) is None else ()


def find(folder: Path, bundle: Bundle) -> Trial:
    """Answer with each count in turn, the default before and after the others; remember the fastest.

    Another count than the default is chosen only when it takes 5 % less time than the default did at its best, so
    that it is never slower. A model that takes long to load keeps the default.
    """
    trial = choose(candidates(), lambda threads: _ms_per_token(folder, bundle, threads))
    noted.write(_note(bundle), asdict(trial))
    return trial


def choose(counts: Sequence[int], measure: Callable[[int], tuple[float, float]]) -> Trial:
    """The fastest of `counts`, whose first is the default; `measure` gives ms per token, and seconds to load."""
    default, *others = counts
    ms, load_s = measure(default)
    found = {default: ms}
    if load_s <= _SLOW_LOAD_S:
        found |= {n: measure(n)[0] for n in others}
        found[default] = min(ms, measure(default)[0])
    fastest = min(found, key=lambda n: (found[n], n))
    return Trial(fastest if found[fastest] < _GAIN * found[default] else default, default, found)


def _ms_per_token(folder: Path, bundle: Bundle, threads: int) -> tuple[float, float]:
    began = time.perf_counter()
    session = load("edge.runtimes.engines", bundle.format).load(folder, bundle, threads=threads, context_length=None)
    try:
        load_s = time.perf_counter() - began
        until = time.perf_counter() + BUDGET_S / (len(candidates()) + 1)
        stamps = []
        for token in generate(session, _PROMPT, Sampling(max_tokens=_MOST_TOKENS)):
            stamps.append(token.time_ns)
            if len(stamps) > _LEAST_TOKENS and time.perf_counter() > until:
                break
    finally:
        session.close()
    return statistics.median(b - a for a, b in itertools.pairwise(stamps)) / 1e6, load_s


def _note(bundle: Bundle) -> Path:
    return noted.path("threads", bundle)


def _speed(cpus: Path, cpu: int) -> int:
    """How fast a core is beside the others, 0 where the system does not tell."""
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            return int((cpus / f"cpu{cpu}" / name).read_text())
        except (OSError, ValueError):
            continue
    return 0
