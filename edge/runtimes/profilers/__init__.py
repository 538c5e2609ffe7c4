"""Where a runtime spends its time, operator by operator: one file here for each format.

A profiler has `record(folder, bundle, prompt, n_new, threads, context_length) -> Recording`. It answers the way the
session does, with the runtime's own instruments on, which cost time: how much is measured apart, without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PHASES = ("prefill", "decode")
WARM_UP = 8  # tokens that are read before anything is recorded
_LAYER = re.compile(r"(?:layers?|blk|block)[._/](\d+)\b|-(\d+)(?: \(\w+\))?$")


@dataclass(frozen=True)
class Event:
    """One operator, once. `step` counts the runs of its phase; microseconds, `start_us` since the recording began.

    `name` is the graph's own for it; `layer` is `None` for what belongs to no layer, or where nothing tells.
    """

    phase: str
    step: int
    operator: str
    name: str
    layer: int | None
    start_us: float
    us: float


@dataclass(frozen=True)
class Step:
    """One run of the graph: a piece of the prompt, or one new token."""

    phase: str
    tokens: int
    start_us: float
    us: float


@dataclass(frozen=True)
class Recording:
    """`instrument` is what counted. `layers_by_order`: layers were told from the order of operators, not by name."""

    instrument: str
    steps: Sequence[Step]
    events: Sequence[Event]
    layers_by_order: bool = False

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "instrument": self.instrument,
            "layers_by_order": self.layers_by_order,
            "steps": [vars(step) for step in self.steps],
            "events": [vars(event) for event in self.events],
        }


def parse(found: Mapping[str, Any]) -> Recording:
    """The inverse of `record`."""
    return Recording(
        instrument=str(found["instrument"]),
        steps=[Step(**row) for row in found["steps"]],
        events=[Event(**row) for row in found["events"]],
        layers_by_order=bool(found["layers_by_order"]),
    )


def layer_of(name: str) -> int | None:
    """The layer in an operator's name.

    >>> layer_of("model/layers.26/mlp/Mul_node_597"), layer_of("ffn_out-3"), layer_of("result_output")
    (26, 3, None)
    """
    found = _LAYER.search(name)
    return int(found[1] or found[2]) if found else None
