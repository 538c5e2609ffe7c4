"""KL divergence of the student's answers to the teacher's (Gu et al. 2023, "MiniLLM", arXiv:2306.08543).

    [loss.reverse-kl]
    weight = 1.0

A student that cannot say all that its teacher says keeps to what is likely, instead of covering what is not.
MiniLLM takes text that the student wrote; here it is the recipe's text.
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
    return (student.exp() * (student - teacher)).sum(-1)
