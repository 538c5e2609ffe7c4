"""Gemma 3 with vision: patches averaged over squares; the rows of a picture see each other in every layer."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_vlm

NAME = "Gemma 3, vision"
FAMILY = "vlm"


def make(folder: Path) -> None:
    tiny_vlm.gemma3(folder)
