"""LLaVA with SigLIP: every patch of the tower's last layer, two linear layers, a Llama that reads them as tokens."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_vlm

NAME = "LLaVA, SigLIP"
FAMILY = "vlm"


def make(folder: Path) -> None:
    tiny_vlm.llava(folder)
