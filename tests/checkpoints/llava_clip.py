"""LLaVA with CLIP: the last layer but one, without its class token; llama.cpp's own CLIP encoder is not used."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_vlm

NAME = "LLaVA, CLIP"
FAMILY = "vlm"


def make(folder: Path) -> None:
    tiny_vlm.llava(folder, tower="clip")
