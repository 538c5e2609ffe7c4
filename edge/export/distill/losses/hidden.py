"""Hidden states that point where the teacher's do, layer by layer (Sanh et al. 2019, "DistilBERT", arXiv:1910.01108).

    [loss.hidden]
    weight = 0.5

One minus the cosine between the student's state after a layer and the teacher's after the layer that it came from. The
teacher is run while the student learns, which takes a third more time. Both need the same width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WANTS = "hidden"


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def loss(teacher: torch.Tensor, student: torch.Tensor, options: Options) -> torch.Tensor:
    """One value `(tokens,)` of hidden states `(layers, tokens, hidden)`."""
    import torch

    return (1 - torch.nn.functional.cosine_similarity(teacher, student, dim=-1)).mean(0)
