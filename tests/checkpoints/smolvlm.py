"""SmolVLM (Idefics3): pictures in tiles, neighbouring patches of a tile side by side in one row."""

from __future__ import annotations

from pathlib import Path

from tests import tiny_vlm

NAME = "SmolVLM"
FAMILY = "vlm"


def make(folder: Path) -> None:
    tiny_vlm.smolvlm(folder)
