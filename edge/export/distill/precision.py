"""In what numbers students are trained: bfloat16 products where the processor multiplies them, else float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions for products of bfloat16; without, they are slower than float32's."""
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags.split() or "amx_bf16" in flags.split()


def computing() -> AbstractContextManager[Any]:
    """Within, matrix products are of bfloat16 where that is faster; weights stay float32."""
    import torch

    return torch.autocast("cpu", torch.bfloat16) if has_bfloat16() else nullcontext()
