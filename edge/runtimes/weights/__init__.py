"""What a bundle's decoder holds, tensor by tensor, from its file's header: one file here for each format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """`type` is the format's own word for how it is stored. `chosen_only`: of experts, only the chosen are computed."""

    name: str
    type: str
    n_bytes: int
    chosen_only: bool = False
