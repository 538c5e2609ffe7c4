"""CLIP in NumPy, from an mmproj file, until llama.cpp's own is right.

llama.cpp puts the class token behind the patches while positions and the choice of rows take it to
be in front: each patch gets its neighbour's position, the first one is lost (llama.cpp issue 25814).
What is computed here is what `transformers` computes, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import InputError, UsageError
from edge.readers.gguf import GgufHeader

if TYPE_CHECKING:
    import numpy as np

    from edge.runtimes.pixels import Views

_DTYPES = {"F32": "float32", "F16": "float16"}


class ClipEncoder:
    """See `edge.runtimes.encoders.Encoder`. Weights are mapped; one layer at a time is in float32."""

    def __init__(self, path: Path, header: GgufHeader, rule: Mapping[str, Any]) -> None:
        meta = header.metadata
        self._path, self._header, self._rule = path, header, rule
        try:
            self._layers = int(meta["clip.vision.block_count"])
            self._heads = int(meta["clip.vision.attention.head_count"])
            self._patch = int(meta["clip.vision.patch_size"])
            self._epsilon = float(meta["clip.vision.attention.layer_norm_epsilon"])
        except (KeyError, TypeError, ValueError) as err:
            raise InputError(f"{path} does not say how its vision encoder is built: {err}") from None
        self._quick = not meta.get("clip.use_gelu", False)
        self._open = True

    def encode(self, views: Views) -> np.ndarray:
        import numpy as np

        if not self._open:
            raise UsageError("this encoder is closed", hint="open the bundle again")
        out = [self._one(view) for view in views.values]
        return np.concatenate(out)

    def close(self) -> None:
        self._open = False

    def _one(self, view: np.ndarray) -> np.ndarray:
        """`(3, h, w)` -> `(rows, hidden)`."""
        import numpy as np

        w, p = self._weight, self._patch
        _, height, width = view.shape
        rows, columns = height // p, width // p
        # (3, rows, p, columns, p) -> (rows * columns, 3 * p * p): a convolution whose windows do not overlap
        cut = view[:, : rows * p, : columns * p].reshape(3, rows, p, columns, p)
        cut = cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
        kernel = w("v.patch_embd.weight")
        x = cut @ kernel.reshape(len(kernel), -1).T
        if "v.patch_embd.bias" in self._header.tensors:
            x = x + w("v.patch_embd.bias")
        x = np.concatenate([w("v.class_embd").reshape(1, -1), x]) + w("v.position_embd.weight")
        x = self._norm(x, "v.pre_ln")
        for i in range(self._layers):
            b = f"v.blk.{i}"
            x = x + self._attention(self._norm(x, f"{b}.ln1"), b)
            y = self._linear(self._norm(x, f"{b}.ln2"), f"{b}.ffn_up")
            x = x + self._linear(_quick_gelu(y) if self._quick else _gelu(y), f"{b}.ffn_down")
        x = x[len(x) - self._rule["n_tokens"] :]  # without the class token, unless it counts
        hidden: np.ndarray = self._linear(_gelu(self._linear(x, "mm.0")), "mm.2").astype(np.float32)
        return hidden

    def _attention(self, x: np.ndarray, block: str) -> np.ndarray:
        import numpy as np

        n, width = x.shape
        q, k, v = (
            self._linear(x, f"{block}.attn_{name}").reshape(n, self._heads, -1).transpose(1, 0, 2) for name in "qkv"
        )
        scores = (q @ k.transpose(0, 2, 1)) / np.float32(np.sqrt(width // self._heads))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return self._linear((scores @ v).transpose(1, 0, 2).reshape(n, width), f"{block}.attn_out")

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        import numpy as np

        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self._epsilon))
        out: np.ndarray = centred / scale * self._weight(f"{name}.weight") + self._weight(f"{name}.bias")
        return out

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        out = x @ self._weight(f"{name}.weight").T
        bias = f"{name}.bias"
        return out + self._weight(bias) if bias in self._header.tensors else out

    def _weight(self, name: str) -> np.ndarray:
        import numpy as np

        tensor = self._header.tensors.get(name)
        if tensor is None or tensor.type not in _DTYPES:
            raise InputError(f"{self._path} lacks {name} in 16 or 32 bits", hint="export it again")
        shape = tuple(reversed(tensor.shape))
        return np.memmap(self._path, _DTYPES[tensor.type], "r", tensor.offset, shape).astype(np.float32)


def _quick_gelu(x: np.ndarray) -> np.ndarray:
    import numpy as np

    out: np.ndarray = x / (1 + np.exp(-np.float32(1.702) * x))
    return out


def _gelu(x: np.ndarray) -> np.ndarray:
    """With the error function, by Abramowitz and Stegun 7.1.26: at most 1.5e-7 off."""
    import numpy as np

    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - poly * np.exp(-z * z))
    out: np.ndarray = (0.5 * x * (1 + erf)).astype(np.float32)
    return out
