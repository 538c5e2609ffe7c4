"""Types whose errors agree with one another, so that they cost more than the sum of what each costs.

A model that was trained on from weights of a type's grid loses, rounded to that grid again, just what it learned: small
errors in every matrix, all in one direction. The planner adds up what matrices cost as if their errors did not know of
each other. Of a mixture that was trained from Q4_1 blocks it expected a divergence of 0.002 so, and 0.04 was measured;
errors of the same sizes with signs by chance cost what was expected.

Such a type can be told by what it seems to give. Each bit makes errors four times smaller, in squares, whatever the
type; what errs less than half of what its bits would make of it suits these very weights. So just such types are tried:
the whole source is rounded to one of them, and what that does to its output is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.export import streamed
from edge.export.calibrate import Calibration, running
from edge.export.checkpoint import Checkpoint
from edge.export.planner import sensitivity as sensitivities
from edge.export.planner.front import Part
from edge.export.planner.sensitivity import Sensitivity
from edge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

_BETTER = 2.0  # times less than its bits would make it err, beside the others
_WORSE = 3.0  # times what was expected: more than estimates are usually off
_STREAMED = "types that suit these weights too well were not tried: the source does not fit in memory"


def suspects(parts: Sequence[Part]) -> tuple[str, ...]:
    """Types that err far less than their bits let expect, in most of what could have them."""
    types = dict.fromkeys(option.type for part in parts for option in part.options)
    return tuple(kind for kind in types if _is_suspect(kind, parts))


def _is_suspect(kind: str, parts: Sequence[Part]) -> bool:
    n = n_suspect = 0
    for part in parts:
        # What is left when the bits are taken out, of types that round at all: eight bits and fewer, nearly.
        plain = {o.type: o.damage * 4.0**bits for o in part.options if (bits := 8 * o.n_bytes / part.n_elements) < 9}
        if kind in plain:
            n += part.n_elements
            n_suspect += part.n_elements * (_BETTER * plain[kind] < statistics.median(plain.values()))
    return 2 * n_suspect > n > 0


def corrected(
    parts: Sequence[Part],
    checkpoint: Checkpoint,
    calibration: Calibration,
    sensitivity: Sensitivity,
    rounded: Callable[[str, np.ndarray, str], np.ndarray],
    progress: Progress,
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts with what suspected types were found to cost, and what should be said about it.

    `rounded(name, rows, type)` is what `damage.of` takes.
    """
    kinds = suspects(parts)
    if not kinds:
        return tuple(parts), ()
    model = running(checkpoint, calibration)
    if streamed.is_streamed(model):
        return tuple(parts), (_STREAMED,)
    factors, notes = {}, []
    progress.start("trying types that suit these weights well", len(kinds))
    for done, kind in enumerate(kinds):

        def as_stored(name: str, matrix: np.ndarray, kind: str = kind) -> np.ndarray:
            return rounded(name, matrix, kind)

        expected, found = sensitivities.tried(model, checkpoint, calibration, sensitivity, as_stored)
        progress.advance(done + 1)
        if found > _WORSE * sensitivity.kld(expected):
            factors[kind] = sensitivity.kld.inverse(found) / max(expected, 1e-30)
            notes.append(
                f"{kind} suits these weights, but undoes what they were trained for: rounding all to it costs "
                f"{found:.4f} nats, and {sensitivity.kld(expected):.4f} were expected"
            )
    return tuple(_scaled(part, factors) for part in parts), tuple(notes)


def _scaled(part: Part, factors: dict[str, float]) -> Part:
    options = tuple(replace(o, damage=o.damage * factors.get(o.type, 1.0)) for o in part.options)
    return replace(part, options=options)
