"""Both sides of a loss: a text's stored answers of the teacher, and what the student says at the same places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from edge.export.distill.store import Store

_ROWS = 32  # of logits in float32 at one time: what a processor's cache holds


class Batch(NamedTuple):
    """Texts padded at their ends. `ids` and `mask` `(texts, longest)`; of the tokens that are real, in order:
    `best` the teacher's likeliest next ones `(tokens, k)` and `logs` their log-probabilities and the rest's
    `(tokens, k + 1)`."""

    ids: torch.Tensor
    mask: torch.Tensor
    best: torch.Tensor
    logs: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return Batch._make(part.to(device) for part in self)

    @property
    def n_tokens(self) -> int:
        return len(self.best)


def batch(store: Store, chosen: Sequence[int]) -> Batch:
    """Those texts with what the teacher said about them; probabilities add up to one again after half precision."""
    rows = [store[i] for i in chosen]
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.from_numpy(row["token"].astype(np.int64))
        mask[n, : len(row)] = 1
    every = np.concatenate(rows)
    logs = np.concatenate([every["logs"], every["rest"][:, None]], 1).astype(np.float32)
    return Batch(ids, mask, torch.from_numpy(every["ids"].astype(np.int64)), torch.from_numpy(logs).log_softmax(-1))


def said(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The student's log-probabilities `(tokens, k + 1)` of the teacher's likeliest tokens, and of all others."""
    out: torch.Tensor = _Said.apply(logits[batch.mask.bool()], batch.best)
    return out


class _Said(torch.autograd.Function):
    """By hand and some rows at a time: written out, it would hold six copies of the logits in float32."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(logits), best.shape[1] + 1, device=logits.device)
        for rows in _some(len(logits)):
            x, ids = logits[rows].to(torch.float32, copy=True), best[rows]
            whole = x.logsumexp(-1, keepdim=True)
            out[rows, :-1] = x.gather(1, ids) - whole
            out[rows, -1:] = x.scatter_(1, ids, -torch.inf).logsumexp(-1, keepdim=True) - whole
        ctx.save_for_backward(logits, best, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        logits, best, out = ctx.saved_tensors
        back = torch.empty_like(logits)
        for rows in _some(len(logits)):
            x, ids, given = logits[rows].to(torch.float32, copy=True), best[rows], gradient[rows].float()
            p = x.sub_(x.logsumexp(-1, keepdim=True)).exp_()
            kept, every = p.gather(1, ids), given.sum(-1, keepdim=True)
            # Of the others together each has its share of their gradient; all have the whole's, by their probability.
            p *= given[:, -1:] / out[rows, -1:].exp().clamp(min=1e-12) - every
            back[rows] = p.scatter_(1, ids, given[:, :-1] - every * kept).to(back.dtype)
        return back, None


def _some(n: int) -> Iterator[slice]:
    return (slice(i, i + _ROWS) for i in range(0, n, _ROWS))


def kld(model: Any, store: Store, *, texts_at_once: int) -> float:
    """Mean divergence in nats of the teacher's stored answers to the model's, over all tokens of the store."""
    total, device = 0.0, next(model.parameters()).device
    with torch.no_grad():
        for at in range(0, len(store), texts_at_once):
            asked = batch(store, range(at, min(at + texts_at_once, len(store)))).to(device)
            logs = said(model(asked.ids, attention_mask=asked.mask, use_cache=False).logits, asked)
            total += float((asked.logs.exp() * (asked.logs - logs)).sum())
    return total / store.n_tokens
