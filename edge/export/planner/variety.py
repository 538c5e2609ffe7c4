"""What one format can vary in one checkpoint, with what each choice costs: what is kept between two plans."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.export.planner.front import Mix, Option, Part, mixes


@dataclass(frozen=True)
class Variety:
    """`parts` that can be stored in several ways, and `rest_bytes` of the model's files that cannot.

    `named` holds, for the format's own quantizations, the type of each part. `bits` is what a type counts as for the
    gate.
    """

    parts: tuple[Part, ...]
    named: Mapping[str, tuple[str, ...]]
    bits: Mapping[str, int]
    rest_bytes: int
    notes: tuple[str, ...] = field(default=())

    def mixes(self) -> list[Mix]:
        """The format's own quantizations, then the mixtures between them."""
        own = [
            Mix(name, tuple(part.option(kind) for part, kind in zip(self.parts, kinds, strict=True)))
            for name, kinds in self.named.items()
        ]
        return own + mixes(self.parts)

    def read_bytes(self, mix: Mix) -> int:
        """Bytes of weights that one token reads."""
        return round(sum(part.read * o.n_bytes for part, o in zip(self.parts, mix.chosen, strict=True)))

    def bits_per_weight(self, mix: Mix) -> float:
        return 8 * mix.n_bytes / max(1, sum(part.n_elements for part in self.parts))

    def few_bits(self, mix: Mix) -> float:
        """The share of the weights that have less than 16 bits: runtimes multiply them with 8-bit numbers."""
        total = sum(part.n_elements for part in self.parts)
        chosen = zip(self.parts, mix.chosen, strict=True)
        return sum(part.n_elements for part, o in chosen if self.bits[o.type] < 16) / max(1, total)

    def class_bits(self, mix: Mix) -> int:
        """What the gate judges it as: the fewest bits such that a tenth of the weights have no more.

        A single small matrix of few bits does not loosen the gate, and what is mostly of few bits is not held to more.
        """
        total = sum(part.n_elements for part in self.parts)
        chosen = list(zip(self.parts, mix.chosen, strict=True))
        for bits in sorted(set(self.bits.values())):
            if sum(part.n_elements for part, o in chosen if self.bits[o.type] <= bits) >= 0.1 * total:
                return bits
        return 8

    def types(self, mix: Mix) -> dict[str, str]:
        """The type of each part by its name."""
        return {part.name: o.type for part, o in zip(self.parts, mix.chosen, strict=True)}


def to_json(variety: Variety) -> str:
    return json.dumps(dataclasses.asdict(variety))


def from_json(text: str) -> Variety:
    """What `to_json` wrote."""
    found = json.loads(text)
    parts = tuple(Part(**{**row, "options": tuple(Option(**o) for o in row["options"])}) for row in found["parts"])
    named = {name: tuple(kinds) for name, kinds in found["named"].items()}
    return Variety(**{**found, "parts": parts, "named": named, "notes": tuple(found["notes"])})
