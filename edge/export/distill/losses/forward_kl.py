"""KL divergence of the teacher's answers to the student's (Hinton et al. 2015, arXiv:1503.02531): covers all it says.

[loss.forward-kl]
weight = 1.0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WANTS = "answers"


@dataclass(frozen=True)
class Options:
    """Nothing to choose."""


def loss(teacher: torch.Tensor, student: torch.Tensor, options: Options) -> torch.Tensor:
    """Nats `(tokens,)` between log-probabilities `(tokens, k + 1)`."""
    return (teacher.exp() * (teacher - student)).sum(-1)
