"""The generalized Jensen-Shannon divergence of GKD (Agarwal et al. 2023, arXiv:2306.13649, section 2).

    [loss.jsd]
    beta = 0.5

With m = beta * teacher + (1 - beta) * student it is beta * KL(teacher, m) + (1 - beta) * KL(student, m). Near 0 its
gradient is that of the forward KL, near 1 that of the reverse one. Only the loss is GKD's: the text is the recipe's,
not what the student writes while it learns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:
    import torch

WANTS = "answers"


@dataclass(frozen=True)
class Options:
    """`beta` is the teacher's share in the mixture, between 0 and 1."""

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise UsageError(f"[loss.jsd] beta: wanted a number between 0 and 1, found {self.beta}")


def loss(teacher: torch.Tensor, student: torch.Tensor, options: Options) -> torch.Tensor:
    """Nats `(tokens,)` between log-probabilities `(tokens, k + 1)`."""
    import torch

    beta = options.beta
    mixed = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    forward = (teacher.exp() * (teacher - mixed)).sum(-1)
    return beta * forward + (1 - beta) * (student.exp() * (student - mixed)).sum(-1)
