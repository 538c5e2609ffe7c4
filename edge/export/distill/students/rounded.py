"""The same model in the few bits that its file will have, which learns to make up for them (Liu et al. 2023, "LLM-QAT",
arXiv:2305.17888).

    [student.rounded]
    to = "tflite int4-rtn"

While it learns, products are computed with rounded weights; gradients pass through the rounding as if it were not there
and move the weights behind them. What comes out lies on the grid already, so exporting it with that quantization
rounds nothing any more, and its distance to its teacher is that of the bundle. Not the model is smaller; the file is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError
from edge.export import experts, sharded
from edge.export.checkpoint import Checkpoint
from edge.export.distill.given import Given
from edge.progress import Progress

if TYPE_CHECKING:
    import torch

LEARNS = True
_BLOCK = 32  # inputs that share a scale, in all of them
_LEAST = 6.2e-5  # of scales in half precision
_OUTER = ("embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Options:
    """`to` is a format and its quantization: what the student will be exported with."""

    to: str


@dataclass(frozen=True)
class _Grid:
    """How blocks `(..., 32)` are rounded, and whether the embedding and the head are too."""

    rounded: Callable[[torch.Tensor], torch.Tensor]
    outer: bool


def make(checkpoint: Checkpoint, options: Options, given: Given, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the checkpoint as it is. Raises `UsageError` for one, or a quantization, that cannot be learned for."""
    _grid(options)
    if experts.layers(checkpoint):
        raise UsageError(f"{checkpoint.name} has experts, which cannot be rounded while they learn")
    sharded.copy_side_files(checkpoint.folder, folder)
    sharded.save(_tensors(checkpoint), dict(checkpoint.config), folder)
    return {"to": options.to}


def rounding(options: Options) -> Callable[[str, torch.Tensor], torch.Tensor | None]:
    """From a parameter's name and value to what the file will hold of it; nothing where it is held as it is."""
    grid = _grid(options)

    def of(name: str, weight: torch.Tensor) -> torch.Tensor | None:
        if weight.dim() != 2 or (name.endswith(_OUTER) and not grid.outer):
            return None
        rest = -weight.shape[1] % _BLOCK
        if rest:
            import torch

            weight = torch.nn.functional.pad(weight, (0, rest))
        found = grid.rounded(weight.reshape(len(weight), -1, _BLOCK)).reshape(weight.shape)
        return found[:, : weight.shape[1] - rest].contiguous()

    return of


def _grid(options: Options) -> _Grid:
    try:
        return GRIDS[options.to]
    except KeyError:
        raise UsageError(
            f"[student.rounded] to: there is no grid {options.to!r}", hint=f"there are: {', '.join(GRIDS)}"
        ) from None


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for name, info in checkpoint.tensors.items():
        with safe_open(checkpoint.folder / info.file, framework="pt") as file:
            yield name, file.get_tensor(name)


def _around_zero(blocks: torch.Tensor) -> torch.Tensor:
    """-7 to 7 times a scale of 16 bits, as `edge.export.blocks` does it, symmetric."""
    scale = (blocks.abs().amax(-1, keepdim=True) / 7).clamp(min=_LEAST).half().float()
    return (blocks / scale).round().clamp(-8, 7) * scale


def _with_zero_point(blocks: torch.Tensor) -> torch.Tensor:
    """0 to 15, less a zero point, times a scale of 32 bits: `edge.export.blocks`, not symmetric."""
    low, high = blocks.amin(-1, keepdim=True).clamp(max=0), blocks.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-10)
    zero = (-low / scale).round().clamp(0, 15)
    return (((blocks / scale).round() + zero).clamp(0, 15) - zero) * scale


def _of_largest(blocks: torch.Tensor) -> torch.Tensor:
    """-8 to 7 times a scale of 16 bits whose sign is such that the largest weight is at -8: ggml's Q4_0."""
    import torch

    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    codes = torch.where(scale == 0, torch.zeros_like(blocks), blocks / torch.where(scale == 0, 1.0, scale))
    return ((codes + 8.5).floor().clamp(0, 15) - 8) * scale.half().float()


GRIDS = {
    "gguf q4_0": _Grid(_of_largest, outer=False),
    "onnx int4-rtn-32": _Grid(_with_zero_point, outer=True),
    "tflite int4-rtn": _Grid(_around_zero, outer=True),
}
