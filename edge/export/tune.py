"""Let the scales of a quantized model learn from its source, with the source's own words as text.

Rounding leaves every weight where it is on its grid; what is left to choose is how wide each grid
is. The scales are trained so that the quantized model gives the source's probabilities
(knowledge distillation with scales only: Chen et al. 2024, "EfficientQAT", its second phase), on
text that the source wrote itself (Liu et al. 2023, "LLM-QAT": data-free). A file gets no larger,
and no weight moves that was not quantized.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import require
from edge.export.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

    from edge.export.checkpoint import Checkpoint

LIMIT_PARAMETERS = 500_000_000  # larger models lose less to rounding, and this takes them too long
_RATE = 1e-4
_BETAS = (0.9, 0.95)
_BATCH = 2  # windows for each step
_WARM_UP_STEPS = 5
_LEAST_RATE = 0.05  # of the full one, at the end


@dataclass
class Grid:
    """A quantized matrix while its scales learn.

    `steps` int8 `(outputs, blocks, block_size)` counts steps from zero (the zero point taken off),
    `scales` float32 `(outputs, blocks)` is changed in place.
    """

    steps: np.ndarray
    scales: np.ndarray
    n_inputs: int


def tune_scales(
    checkpoint: Checkpoint,
    grids: Mapping[str, Grid],
    windows: Sequence[Sequence[int]],
    *,
    rounded_activations: bool = False,
    tie: tuple[str, str] | None = None,
    progress: Progress | None = None,
) -> float:
    """Train the scales of `grids` (by source weight name) on `windows` of token ids; the last mean loss, in nats.

    `rounded_activations` is for runtimes that round the inputs of products to 8 bits, a row at a
    time: the scales learn with it. `tie` names the embedding and the head that share one grid.
    Deterministic for the same inputs, library versions and number of threads.
    """
    require("torch", extra="export", purpose="tuning scales")
    import torch
    import torch.nn.functional as F

    from edge.export.reference import load_model

    progress = progress or Silent()
    teacher = load_model(checkpoint)
    student = load_model(checkpoint).requires_grad_(requires_grad=False)
    scales = {name: torch.nn.Parameter(torch.from_numpy(grid.scales.copy())) for name, grid in grids.items()}
    weights = _attach(student, grids, scales, tie, _rounded if rounded_activations else None)
    optimizer = torch.optim.Adam(scales.values(), lr=_RATE, betas=_BETAS)
    order = list(windows)
    random.Random(0).shuffle(order)
    steps = [order[i : i + _BATCH] for i in range(0, len(order) - _BATCH + 1, _BATCH)]
    progress.start("tuning scales", len(steps))
    recent: list[float] = []
    for i, batch in enumerate(steps):
        rate = min(1.0, (i + 1) / _WARM_UP_STEPS) * max(_LEAST_RATE, 1 - i / len(steps))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * rate
        for window in batch:
            ids = torch.tensor([list(window)])
            with torch.inference_mode():
                wanted = F.log_softmax(teacher(ids, use_cache=False).logits[0], -1)
            weights.clear()
            found = F.log_softmax(student(ids, use_cache=False).logits[0], -1)
            loss = F.kl_div(found, wanted.clone(), reduction="batchmean", log_target=True)
            (loss / len(batch)).backward()
            recent.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
        progress.advance(i + 1)
    for name, grid in grids.items():
        grid.scales[:] = scales[name].detach().numpy()
    tail = recent[-max(1, len(recent) // 5) :]
    return sum(tail) / len(tail) if tail else 0.0


def _attach(
    model: Any, grids: Mapping[str, Grid], scales: Mapping[str, Any], tie: tuple[str, str] | None, rounded: Any
) -> dict[str, Any]:
    """Let the model's layers compute with the grids; what is returned is to be emptied before each forward."""
    import torch
    import torch.nn.functional as F

    made: dict[str, Any] = {}
    steps = {name: torch.from_numpy(grid.steps) for name, grid in grids.items()}

    def weight(name: str) -> Any:
        if name not in made:
            made[name] = _on_grid().apply(steps[name], scales[name])[:, : grids[name].n_inputs]
        return made[name]

    for module_name, module in model.named_modules():
        name = f"{module_name}.weight"
        key = tie[0] if tie and name == tie[1] else name
        if key not in grids:
            continue
        if isinstance(module, torch.nn.Embedding):
            module.forward = lambda ids, k=key: F.embedding(ids, weight(k))
        elif isinstance(module, torch.nn.Linear):
            module.forward = lambda x, k=key, b=module.bias: F.linear(rounded(x) if rounded else x, weight(k), b)
    return made


def _on_grid() -> Any:
    """steps x scales, with a gradient for the scales alone."""
    import torch

    class OnGrid(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, steps: Any, scales: Any) -> Any:
            ctx.save_for_backward(steps)
            return (steps * scales[..., None]).flatten(1)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (steps,) = ctx.saved_tensors
            return None, (gradient.view(steps.shape) * steps).sum(-1)

    return OnGrid


def _rounded(x: Any) -> Any:
    """Each row on 256 steps between its least and largest value, zero among them; gradients pass through."""
    import torch

    with torch.no_grad():
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        step = ((high - low) / 255).clamp(min=1e-10)
        zero = torch.round(-128 - low / step)
        error = (torch.clamp(torch.round(x / step) + zero, -128, 127) - zero) * step - x
    return x + error


def own_words(
    checkpoint: Checkpoint,
    openings: Sequence[Sequence[int]],
    *,
    n_windows: int,
    n_tokens: int,
    stop_ids: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[tuple[int, ...]]:
    """Continuations of `openings` that the source draws at temperature 1: `n_windows` of up to `n_tokens` ids.

    Openings of one length are drawn together. What comes after a stop id is cut off.
    """
    require("torch", extra="export", purpose="writing text to tune with")
    import torch

    from edge.export.reference import load_model

    progress = progress or Silent()
    model = load_model(checkpoint)
    length = min(len(o) for o in openings)
    rows = [list(openings[i % len(openings)][:length]) for i in range(n_windows)]
    draw = torch.Generator().manual_seed(0)
    progress.start("letting the source write", n_tokens - length)
    with torch.inference_mode():
        ids = torch.tensor(rows)
        out = model(ids, use_cache=True)
        for done in range(n_tokens - length):
            p = torch.softmax(out.logits[:, -1], -1)
            new = torch.multinomial(p, 1, generator=draw)
            ids = torch.cat([ids, new], 1)
            out = model(new, past_key_values=out.past_key_values, use_cache=True)
            progress.advance(done + 1)
    stops = set(stop_ids)
    return [_until(row, length, stops) for row in ids.tolist()]


def _until(row: Sequence[int], start: int, stops: set[int]) -> tuple[int, ...]:
    end = next((i + 1 for i in range(start, len(row)) if row[i] in stops), len(row))
    return tuple(row[:end])
