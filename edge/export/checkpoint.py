"""Checkpoint: what every source becomes - a Hugging Face folder, hashed, with safe tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TensorInfo:
    """A source tensor as its header tells it; `dtype` in safetensors' words (F32, BF16, ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str


@dataclass(frozen=True)
class Checkpoint:
    """A model in the layout of `transformers`: config.json, *.safetensors, tokenizer.json.

    `folder` is the user's own folder, or one that `edge.export.source` made in the cache
    from a GGUF file or the zoo. `identity` maps each input file to its sha256; for a GGUF
    file or the zoo it names the original file, not what was made from it. `sees` marks the text
    part of a model that sees: its decoder must take embeddings as well as tokens.
    """

    folder: Path
    name: str
    family: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    identity: Mapping[str, str]
    licence: str | None = None
    sees: bool = False

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The configuration of the decoder: the nested one of a model that also sees, else all of it."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    @property
    def n_parameters(self) -> int:
        """Stored parameters: a tied embedding counts once."""
        total = 0
        for info in self.tensors.values():
            n = 1
            for d in info.shape:
                n *= d
            total += n
        return total

    @property
    def id(self) -> str:
        """Sixteen hex digits over `identity`: the cache key of everything made from it."""
        import hashlib

        text = "\n".join(f"{k} {v}" for k, v in sorted(self.identity.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stored_name(self, parameter: str) -> str:
        """The tensor of a parameter of the model: one that was saved without its head lacks `model.` in its names."""
        bare = parameter.removeprefix("model.")
        return bare if parameter not in self.tensors and bare in self.tensors else parameter

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32 (integers as they are); nothing else is loaded."""
        from edge.export.source import read_tensor

        return read_tensor(self, name)

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor in file order, one at a time: bounded memory."""
        for name in self.tensors:
            yield name, self.read(name)
