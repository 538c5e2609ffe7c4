"""What a kind of student has at hand beside the checkpoint it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.export.calibrate import Calibration


@dataclass(frozen=True)
class Given:
    """`text` is the user's own, in the ids of the checkpoint, and `None` where the teacher is to write its own.

    `sample` is what importance is measured on: some of that text, or what ships with edge. `files` are below
    `folder`, which is that of the recipe.
    """

    text: Calibration | None
    sample: Calibration
    held_out: Calibration
    folder: Path
