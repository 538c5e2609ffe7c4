"""What was measured: raw samples with their unit, and the machine, runtime and command they came from.

Samples are kept as they were taken; every statistic is computed when it is read. Results are
comparable only when what they depend on is the same: `Result.conditions_key` says what that is.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

SCHEMA_VERSION = 2
_OLDEST = 1  # what edge 0.1.0 of November 2026 wrote: everything of 2 that it lacks is optional
_LIMIT_BYTES = 256 << 20
_RESAMPLES = 1000
_DEVICE = ("model", "cpu", "physical_cores", "ram_bytes", "kernel", "governor")  # what speed depends on
_WORDS = {"ram_bytes": "memory", "model": "device"}
_MANY = 2000
# Where one of these stands in a run, it is a number or nothing: somebody else may have written it.
_NUMBERS = frozenset((
    "ram_bytes", "read_bandwidth_bytes_per_s", "size_bytes", "kv_bytes", "weights_bytes", "kv_bytes_per_token",
    "unpacked_bytes", "new_tokens", "threads", "context_length", "joules", "tokens", "at_s", "tokens_per_s",
    "temperature_c", "frequency_mhz", "others_share", "stolen_share", "available_bytes", "load_average",
    "battery_percent", "thermal_status", "mean_kld", "same_top1", "nmse", "answers_kept",
))  # fmt: skip
FEWEST = 5  # repetitions: of fewer, no draw can hold what it claims with 95 % confidence


@dataclass(frozen=True)
class Measurement:
    """Samples of one quantity: `name` (`decode`, `ttft_128`, ...), `unit`, and the raw values.

    `repeats` says how many of the samples came from each repetition, where that was more than one. Samples of one
    repetition resemble each other, so intervals come from drawing whole repetitions, never single samples.
    """

    name: str
    unit: str
    samples: tuple[float, ...]
    repeats: tuple[int, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, p: float) -> float:
        """By linear interpolation between samples, `p` from 0 to 100.

        >>> Measurement("x", "ms", (1.0, 2.0, 3.0, 4.0)).percentile(50)
        2.5
        """
        return _percentile(sorted(self.samples), p)

    def interval(self, p: float = 50) -> tuple[float, float]:
        """Bounds of a percentile (the median) with 95 % confidence, by bootstrap; the same every time it is computed.

        Method: draw as many repetitions as there are, with replacement, 1000 times; take the percentile of each
        draw's samples; keep the middle 95 % of those. One repetition has no bounds but its own value.
        """
        drawn = sorted(_percentile(sorted(draw), p) for draw in self._draws())
        return drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1]

    @property
    def n_repetitions(self) -> int:
        return len(self.repeats) or len(self.samples)

    def tail(self, p: float) -> float | None:
        """As `percentile`; `None` where so few samples lie above it that it would be little more than the largest.

        >>> Measurement("x", "ms", (1.0, 2.0, 9.0)).tail(99) is None
        True
        """
        return self.percentile(p) if p <= 50 or len(self.samples) * (100 - p) >= 100 else None

    def _draws(self) -> Iterator[list[float]]:
        parts = self.repetitions()
        if len(parts) == 1:
            yield list(self.samples)
            return
        rng = random.Random(0)
        # Thousands of samples in each repetition make a draw slow, and the interval no better.
        for _ in range(_RESAMPLES if len(self.samples) < _MANY else _RESAMPLES // 5):
            yield [x for part in rng.choices(parts, k=len(parts)) for x in part]

    def repetitions(self) -> list[tuple[float, ...]]:
        """Samples of each repetition; each sample is one where `repeats` does not say."""
        if not self.repeats:
            return [(x,) for x in self.samples]
        ends = list(itertools.accumulate(self.repeats))
        return [self.samples[end - n : end] for n, end in zip(self.repeats, ends, strict=True)]


def _percentile(ordered: Sequence[float], p: float) -> float:
    at = (len(ordered) - 1) * p / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@dataclass(frozen=True)
class Result:
    """One bundle, measured on one machine with one setting.

    `bundle` is what the manifest says of it (id, format, sizes, quality record), `runtime` the
    versions of what ran it, `before` and `after` the conditions of the machine, `during` those at the
    end of each repetition. `fitness` is what spoke against measuring before it began, `forced` whether that
    was done nevertheless. `traffic` is what one token makes the runtime read (`edge.runtimes.traffic`),
    `sustained` speed and temperature over the time of a long answer, `energy` its joules and who counted them.
    """

    bundle: Mapping[str, Any]
    runtime: Mapping[str, str]
    settings: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    measurements: Mapping[str, Measurement]
    emulated: bool = False
    notes: tuple[str, ...] = ()
    during: tuple[Mapping[str, Any], ...] = ()
    fitness: Mapping[str, Any] = field(default_factory=dict)
    traffic: Mapping[str, Any] = field(default_factory=dict)
    sustained: tuple[Mapping[str, Any], ...] = ()
    energy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How it is called in tables: the bundle's format and quantization."""
        return f"{self.bundle.get('format', '?')} {self.bundle.get('quantization', '?')}"

    @property
    def acts(self) -> bool:
        """Whether it was measured while it acted (`edge bench --act`), and not while it answered."""
        return "act" in self.settings

    def median(self, name: str) -> float | None:
        """Of one measurement, `None` when it was not taken."""
        found = self.measurements.get(name)
        return found.median if found else None

    def depths(self) -> list[tuple[int, str, str]]:
        """Where in the context answers began, and the names of their measurements: speed, time between tokens."""
        first, *deeper = self.settings.get("depths") or [0]
        return [
            (depth, f"decode{at}", f"inter_token{at}")
            for depth, at in [(int(first), ""), *((int(d), f"_at_{d}") for d in deeper)]
            if f"decode{at}" in self.measurements
        ]

    @property
    def energy_words(self) -> str:
        """Energy for each token of the sustained answer, and who counted it; or that nobody did."""
        used, tokens = self.energy.get("joules"), self.energy.get("tokens")
        if used is None or not tokens:
            return "not measured"
        return f"{1e3 * used / tokens:.0f} mJ a token ({self.energy.get('source')})"

    def roofline(self, bandwidth: float | None) -> float | None:
        """Share of the memory's bandwidth that answering (early in the context) uses; `None` when unknown."""
        decode, read = self.median("decode"), self.traffic.get("weights_bytes")
        if not (decode and read and bandwidth):
            return None
        depth = (self.settings.get("depths") or [0])[0] + self.settings.get("new_tokens", 0) / 2
        return decode * (read + depth * self.traffic.get("kv_bytes_per_token", 0)) / bandwidth


@dataclass(frozen=True)
class Run:
    """What one `edge bench` wrote: where, when, how, and its results."""

    device: Mapping[str, Any]
    command: tuple[str, ...]
    taken_at: str
    edge_version: str
    results: tuple[Result, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)  # measured, not read: memory bandwidth
    complete: bool = True  # False: stopped before the last repetition
    schema_version: int = SCHEMA_VERSION

    def group_of(self, result: Result) -> str:
        """Results with the same key may be shown side by side; others depend on something else.

        The same machine (its model, where it has one) and kernel, the same settings (threads, prompt and
        answer lengths), both emulated or neither.
        """
        device = {k: self.device.get(k) for k in _DEVICE}
        return json.dumps([device, dict(result.settings), result.emulated], sort_keys=True)

    def difference(self, result: Result, other: Run, theirs: Result) -> str:
        """Which of the things that results depend on are not the same; empty when they may be compared."""
        if result.acts != theirs.acts:
            kinds = ("acting", "answering") if result.acts else ("answering", "acting")
            return "one measured {}, the other {}".format(*kinds)
        rows = [(k, self.device.get(k), other.device.get(k)) for k in _DEVICE]
        rows += [
            (k, result.settings.get(k), theirs.settings.get(k)) for k in sorted({*result.settings, *theirs.settings})
        ]
        rows.append(("emulated", result.emulated, theirs.emulated))
        said = [(_WORDS.get(k, k.replace("_", " ")), _said(k, x), _said(k, y)) for k, x, y in rows if x != y]
        return "; ".join(f"{name} {x} and {y}" for name, x, y in said)[:300]


def _said(name: str, value: Any) -> str:
    """A value that results depend on, as people write it.

    >>> _said("ram_bytes", 8 << 30), _said("depths", [16, 512]), _said("governor", None), _said("emulated", True)
    ('8.0 GiB', '[16, 512]', 'unknown', 'yes')
    """
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "ram_bytes":
        return f"{value / 2**30:.1f} GiB"
    return str(value)


def to_json(run: Run) -> str:
    return json.dumps(asdict(run), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Run:
    """A run from its file. Raises `UsageError` when there is none, `InputError` when it is damaged."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no run at {path}", hint="measure one with: edge bench BUNDLE -o run.json")
    if path.stat().st_size > _LIMIT_BYTES:
        raise InputError(f"{path} is larger than a run can be")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path} is damaged: {err}") from err
    return parse(data, str(path))


def parse(data: Any, where: str) -> Run:
    """A run from decoded JSON; `where` names it in errors."""
    if not isinstance(data, dict) or "results" not in data:
        raise InputError(f"{where} is no run of edge bench")
    version = data.get("schema_version")
    if not isinstance(version, int) or not _OLDEST <= version <= SCHEMA_VERSION:
        raise InputError(
            f"{where} has run schema {version!r}, this edge reads {_OLDEST} to {SCHEMA_VERSION}",
            hint="measure it again, or use the edge that wrote it",
        )
    try:
        for table in (data["device"], data.get("machine") or {}):
            _numbers(table)
        if not isinstance(data["device"].get("features", []), list | tuple):
            raise ValueError("features are no list")
        results = tuple(_result(row) for row in data["results"])
        return Run(
            device=dict(data["device"]),
            command=tuple(str(word) for word in data["command"]),
            taken_at=str(data["taken_at"]),
            edge_version=str(data["edge_version"]),
            results=results,
            machine=dict(data.get("machine") or {}),
            complete=bool(data.get("complete", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InputError(f"{where} is damaged: {err!r}", hint="measure it again") from err


def _numbers(table: Any) -> None:
    """Raise `ValueError` for what must be a number in `table` and is none, or for what is no table."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{table!r:.40} is no table")
    for name in _NUMBERS & set(table):
        value = table[name]
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
            raise ValueError(f"{name} is {value!r:.40}, which is no number")


def _lengths(settings: Mapping[str, Any], name: str) -> None:
    found = settings.get(name, [0])
    if not isinstance(found, list) or not found or not all(isinstance(n, int) for n in found):
        raise ValueError(f"{name} is {found!r:.40}, which are no lengths")


def _result(row: Mapping[str, Any]) -> Result:
    bundle, traffic, points = row["bundle"], row.get("traffic") or {}, list(row.get("sustained", ()))
    quality = bundle.get("quality") or {}
    for table in (
        bundle, bundle.get("memory") or {}, bundle.get("source") or {}, bundle.get("tools") or {},
        (bundle.get("source") or {}).get("files") or {}, quality, quality.get("logits") or {},
        quality.get("limits") or {}, row["settings"], row["before"], row["after"], *row.get("during", ()), *points,
        traffic, traffic.get("by_type") or {}, traffic.get("left_out") or {}, row.get("energy") or {},
    ):  # fmt: skip
        _numbers(table)
    for name in ("depths", "prompt_tokens"):
        _lengths(row["settings"], name)
    asked = row["settings"].get("act", [""])
    if not isinstance(asked, list) or not asked or not all(isinstance(words, str) for words in asked):
        raise ValueError(f"act is {asked!r:.40}, which are no requests")
    if not all({"at_s", "tokens_per_s"} <= set(point) for point in points):
        raise ValueError("a point of lasting work has no time or no speed")
    taken = {}
    for name, found in row["measurements"].items():
        samples = tuple(float(x) for x in found["samples"])
        if not samples or not all(math.isfinite(x) for x in samples):
            raise ValueError(f"{name} has samples that are no numbers")
        repeats = tuple(int(n) for n in found.get("repeats") or ())
        if repeats and (sum(repeats) != len(samples) or min(repeats) < 1):
            raise ValueError(f"{name} has {len(samples)} samples and repetitions of {sum(repeats)}")
        taken[str(name)] = Measurement(str(name), str(found["unit"]), samples, repeats)
    return Result(
        bundle=dict(row["bundle"]),
        runtime={str(k): str(v) for k, v in row["runtime"].items()},
        settings=dict(row["settings"]),
        before=dict(row["before"]),
        after=dict(row["after"]),
        measurements=taken,
        emulated=bool(row.get("emulated", False)),
        notes=tuple(str(n) for n in row.get("notes", ())),
        during=tuple(dict(state) for state in row.get("during", ())),
        fitness=dict(row.get("fitness") or {}),
        traffic=dict(row.get("traffic") or {}),
        sustained=tuple(dict(point) for point in row.get("sustained", ())),
        energy=dict(row.get("energy") or {}),
    )


def ratio(a: Measurement, b: Measurement) -> tuple[float, float, float]:
    """Median of `b` over that of `a`, and its bounds with 95 % confidence, by drawing repetitions of both."""
    rng = random.Random(0)

    def again(parts: Sequence[Sequence[float]]) -> float:
        return statistics.median([x for part in rng.choices(parts, k=len(parts)) for x in part])

    if a.median == 0:
        found = math.inf if any(b.samples) else 1.0
        return found, found, found
    ours, theirs = a.repetitions(), b.repetitions()
    drawn = sorted(again(theirs) / (again(ours) or math.inf) for _ in range(_RESAMPLES))
    return b.median / a.median, drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1]
