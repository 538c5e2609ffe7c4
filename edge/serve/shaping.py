"""What is done to logits before a token is drawn: penalties, biases, a grammar; and what the probabilities were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.runtimes.session import Mask

if TYPE_CHECKING:
    import numpy as np

    from edge.serve.asking import Wanted


@dataclass(frozen=True)
class Odds:
    """A token that was drawn: its natural log-probability, and the likeliest in its place, best first."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Shaping:
    """A `Mask` for one answer."""

    def __init__(self, wanted: Wanted, grammar: Mask | None = None) -> None:
        self._frequency, self._presence = wanted.frequency_penalty, wanted.presence_penalty
        self._bias = {i: b for i, b in wanted.logit_bias.items() if b}
        self._biases: tuple[np.ndarray, np.ndarray] | None = None  # ids and what is added to them, made once
        self._grammar = grammar
        self._top = wanted.top_logprobs
        self._raw: np.ndarray | None = None

    @property
    def idle(self) -> bool:
        """Whether it changes and remembers nothing, and can be left out."""
        shapes = self._frequency or self._presence or self._bias or self._grammar
        return not shapes and self._top is None

    def __call__(self, logits: np.ndarray, out: Sequence[int]) -> np.ndarray | int:
        import numpy as np

        if self._top is not None:
            self._raw = logits.copy()
        if self._bias or ((self._frequency or self._presence) and len(out)):
            logits = logits.copy()
            ids, biases = self._biased(len(logits))
            logits[ids] += biases
            if len(out):
                ids, counts = np.unique(np.asarray(out), return_counts=True)
                logits[ids] -= self._frequency * counts + self._presence
        return logits if self._grammar is None else self._grammar(logits, out)

    def _biased(self, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
        """All at once: a list as long as the vocabulary, token by token, would keep all other answers waiting."""
        import numpy as np

        if self._biases is None:
            known = [(i, bias) for i, bias in self._bias.items() if i < vocab_size]
            ids = np.array([i for i, _ in known], np.int64)
            self._biases = ids, np.array([bias for _, bias in known], np.float32)
        return self._biases

    def odds(self, token_id: int, spell: Callable[[list[int]], str]) -> Odds | None:
        """The model's own probabilities, before anything was done to them, for the token drawn last."""
        import numpy as np

        if self._raw is None or self._top is None:
            return None
        raw = self._raw.astype(np.float64)
        raw -= raw.max()
        logs = raw - np.log(np.exp(raw).sum())
        best = np.argpartition(-logs, min(self._top, len(logs) - 1))[: self._top]
        best = best[np.argsort(-logs[best], kind="stable")]
        return Odds(spell([token_id]), float(logs[token_id]), tuple((spell([int(i)]), float(logs[i])) for i in best))
