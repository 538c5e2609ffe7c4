"""What the source itself writes, greedily: the measure of what an export should still write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge.export import cache, preflight
from edge.export.checkpoint import Checkpoint
from edge.export.gate.logits import NEAR_TIE_NATS

_BATCH = 16  # prompts at once: more are no faster on a CPU and take more memory


@dataclass(frozen=True)
class Reply:
    """The source's greedy ids, and by how many nats each was preferred to the next best."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]


def source_replies(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    max_tokens: int,
    model: Callable[[], Any],
) -> tuple[Reply, ...]:
    """Greedy replies of the source to each prompt, at most `max_tokens` long, kept in the cache.

    `model` loads the reference; it is called only when the replies are not there yet.
    """
    key = cache.key(
        checkpoint=checkpoint.id,
        prompts=[list(p) for p in prompts],
        stop=sorted(stop_ids),
        max_tokens=max_tokens,
        code=cache.code_of(__name__),
    )
    folder = cache.find("replies", key)
    if folder is None:
        with cache.building("replies", key) as work:
            # A source that is read for every call is asked everything at once.
            size = len(prompts) if not preflight.holds_source(checkpoint) else _BATCH
            batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
            made = [reply for batch in batches for reply in _greedy(model(), batch, stop_ids, max_tokens)]
            (work / "replies.json").write_text(json.dumps([vars(r) for r in made]))
        folder = cache.root() / "replies" / key
    rows = json.loads((folder / "replies.json").read_text())
    return tuple(Reply(tuple(row["ids"]), tuple(row["margins"])) for row in rows)


def parted_at_near_tie(wanted: Reply, found: Sequence[int]) -> bool:
    """Whether the replies part where the source itself was undecided."""
    at = next((i for i, (a, b) in enumerate(zip(wanted.ids, found, strict=False)) if a != b), None)
    return at is not None and wanted.margins[at] < NEAR_TIE_NATS


def _greedy(model: Any, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int], max_tokens: int) -> list[Reply]:
    """Greedy decoding of the reference for several prompts at once, padded on the left."""
    import torch

    longest = max(len(p) for p in prompts)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, longest - len(prompt) :] = 1
    chosen, margins = [], []
    past = None
    running = torch.ones(len(prompts), dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(max_tokens):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = model(
                ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            best = out.logits[:, -1].log_softmax(-1).topk(2)
            token = best.indices[:, 0]
            chosen.append(token)
            margins.append(best.values[:, 0] - best.values[:, 1])
            running &= ~torch.isin(token, stops)
            if not running.any():
                break
            past, ids = out.past_key_values, token[:, None]
            mask = torch.cat([mask, torch.ones(len(prompts), 1, dtype=torch.long)], 1)
    rows = zip(torch.stack(chosen, 1).tolist(), torch.stack(margins, 1).tolist(), strict=True)
    replies = []
    for row, margin in rows:
        end = next((i for i, token in enumerate(row) if token in stop_ids), len(row))
        replies.append(Reply(tuple(row[:end]), tuple(round(m, 4) for m in margin[: end + 1])))
    return replies
