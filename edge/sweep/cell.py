"""One cell of a sweep: one export of one model, in the words of `edge export`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edge.export.planner.budget import Budget, share, size

AUTO = "auto"
BOUNDS = ("max-size", "max-memory", "min-tokens-per-second", "min-agreement")


@dataclass(frozen=True)
class Cell:
    """What is exported. `bounds` are those of a budget, then `quantization` is `None`; `device` is a part of it too."""

    model: str
    format: str
    quantization: str | None = None
    bounds: tuple[tuple[str, str | float], ...] = ()
    device: str | None = None
    distill: str | None = None
    experts: int | None = None
    kv: str | None = None
    context: int | None = None
    exporter: str | None = None
    calibration: str | None = None
    calibrate: bool = True
    held_out: str | None = None

    @property
    def planned(self) -> bool:
        """Whether a budget chooses the quantization."""
        return self.quantization is None

    @property
    def label(self) -> str:
        """What it is beside its model, in a few words."""
        bounds = [f"{name} {value}" for name, value in self.bounds]
        how = self.quantization or " ".join([*bounds, f"on {_last(self.device)}" if self.device else ""])
        also = [
            f"from {_last(self.distill)}" if self.distill else "",
            f"{self.experts} experts" if self.experts else "",
            f"kv {self.kv}" if self.kv else "",
        ]
        return " ".join(word for word in [self.format, how.strip(), *also] if word)

    @property
    def command(self) -> str:
        """The command that makes this bundle; from the cache in seconds, where it was made."""
        options: list[tuple[str, Any]] = [("format", self.format), ("quant", self.quantization), *self.bounds]
        options += [("device", self.device), ("distill", self.distill)]
        options += [("experts", None if self.experts is None else f"keep={self.experts}"), ("kv", self.kv)]
        options += [("context", self.context), ("exporter", self.exporter), ("calibration", self.calibration)]
        options += [("held-out", self.held_out)]
        words = ["edge", "export", self.model]
        for name, value in options:
            words += [] if value is None else [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
        return shlex.join(words if self.calibrate else [*words, "--no-calibration"])

    def budget(self) -> Budget:
        """Its bounds. Raises `UsageError` for those that make no sense."""
        given = dict(self.bounds)
        budget = Budget(
            max_size_bytes=size(str(given["max-size"])) if "max-size" in given else None,
            max_memory_bytes=size(str(given["max-memory"])) if "max-memory" in given else None,
            min_tokens_per_s=float(given["min-tokens-per-second"]) if "min-tokens-per-second" in given else None,
            min_agreement=share(str(given["min-agreement"])) if "min-agreement" in given else None,
        )
        budget.check()
        return budget

    def record(self) -> dict[str, Any]:
        """As JSON: what was asked for, nothing else."""
        found = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        if "bounds" in found:
            found["bounds"] = dict(self.bounds)
        return found


def from_record(data: Mapping[str, Any]) -> Cell:
    """What `record` said."""
    known = {f.name for f in fields(Cell)}
    given = {name: value for name, value in data.items() if name in known}
    return Cell(**{**given, "bounds": tuple(dict(data.get("bounds", {})).items())})


def _last(name: str) -> str:
    """A path by its last part: where it lies stands in the command."""
    return name.rsplit("/", 1)[-1]
