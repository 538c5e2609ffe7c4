"""Qwen2.5-VL: pictures of any size, attention in windows, rows placed in time, height and width (M-RoPE)."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_vlm

NAME = "Qwen2.5-VL"
FAMILY = "vlm"


def make(folder: Path) -> None:
    tiny_vlm.qwen2_5_vl(folder)
