"""What was measured: raw samples with their unit, and the machine, runtime and command they came from.

Samples are kept as they were taken; every statistic is computed when it is read. Results are
comparable only when what they depend on is the same: `Result.conditions_key` says what that is.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import InputError, UsageError

SCHEMA_VERSION = 1
_LIMIT_BYTES = 256 << 20
_RESAMPLES = 1000


@dataclass(frozen=True)
class Measurement:
    """Samples of one quantity: `name` (`decode_tokens_per_s`, ...), `unit`, and the raw values."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, p: float) -> float:
        """By linear interpolation between samples, `p` from 0 to 100.

        >>> Measurement("x", "ms", (1.0, 2.0, 3.0, 4.0)).percentile(50)
        2.5
        """
        ordered = sorted(self.samples)
        at = (len(ordered) - 1) * p / 100
        low = math.floor(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

    def interval(self) -> tuple[float, float]:
        """Bounds of the median with 95 % confidence, by resampling; the same every time it is computed."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        rng = random.Random(0)
        medians = sorted(statistics.median(rng.choices(self.samples, k=len(self.samples))) for _ in range(_RESAMPLES))
        return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]


@dataclass(frozen=True)
class Result:
    """One bundle, measured on one machine with one setting.

    `bundle` is what the manifest says of it (id, format, sizes, quality record), `runtime` the
    versions of what ran it, `before` and `after` the conditions of the machine, `during` those at the
    end of each repetition.
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

    @property
    def label(self) -> str:
        """How it is called in tables: the bundle's format and quantization."""
        return f"{self.bundle.get('format', '?')} {self.bundle.get('quantization', '?')}"

    def median(self, name: str) -> float | None:
        """Of one measurement, `None` when it was not taken."""
        found = self.measurements.get(name)
        return found.median if found else None


@dataclass(frozen=True)
class Run:
    """What one `edge bench` wrote: where, when, how, and its results."""

    device: Mapping[str, Any]
    command: tuple[str, ...]
    taken_at: str
    edge_version: str
    results: tuple[Result, ...]
    machine: Mapping[str, Any] = field(default_factory=dict)  # measured, not read: memory bandwidth
    schema_version: int = SCHEMA_VERSION

    def group_of(self, result: Result) -> str:
        """Results with the same key may be shown side by side; others depend on something else.

        The same machine (its model, where it has one) and kernel, the same settings (threads, prompt and
        answer lengths), both emulated or neither.
        """
        device = {k: self.device.get(k) for k in ("model", "cpu", "physical_cores", "ram_bytes", "kernel", "governor")}
        return json.dumps([device, dict(result.settings), result.emulated], sort_keys=True)


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
    if data.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{where} has run schema {data.get('schema_version')!r}, this edge reads {SCHEMA_VERSION}",
            hint="measure it again, or use the edge that wrote it",
        )
    try:
        results = tuple(_result(row) for row in data["results"])
        return Run(
            device=dict(data["device"]),
            command=tuple(str(word) for word in data["command"]),
            taken_at=str(data["taken_at"]),
            edge_version=str(data["edge_version"]),
            results=results,
            machine=dict(data.get("machine") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(f"{where} is damaged: {err!r}", hint="measure it again") from err


def _result(row: Mapping[str, Any]) -> Result:
    taken = {}
    for name, found in row["measurements"].items():
        samples = tuple(float(x) for x in found["samples"])
        if not samples or not all(math.isfinite(x) for x in samples):
            raise ValueError(f"{name} has samples that are no numbers")
        taken[str(name)] = Measurement(str(name), str(found["unit"]), samples)
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
    )


def ratio(a: Measurement, b: Measurement) -> tuple[float, float, float]:
    """Median of `b` over that of `a`, and its bounds with 95 % confidence, by resampling both."""
    rng = random.Random(0)

    def again(samples: Sequence[float]) -> float:
        return statistics.median(rng.choices(samples, k=len(samples)))

    if a.median == 0:
        return math.inf, math.inf, math.inf
    drawn = sorted(again(b.samples) / (again(a.samples) or math.inf) for _ in range(_RESAMPLES))
    return b.median / a.median, drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1]
