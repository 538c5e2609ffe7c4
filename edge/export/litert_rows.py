"""Rows of 8 bits whose rounding errors are carried over to other columns, under the scales that a file already has.

A TFLite file repeats the scales of a row in every signature that uses its matrix, so they stay as they are: only the
codes are chosen again, by GPTQ (Frantar et al. 2022), as `edge.export.blocks` does it for blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.export.blocks import carry_errors

if TYPE_CHECKING:
    import numpy as np

_TOP = 127


def codes(matrix: np.ndarray, scales: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """int8 `(outputs, inputs)` for `matrix` float32, with `scales` float32 `(outputs,)`.

    `hessian` is the mean of x x^T over calibration inputs, float32 `(inputs, inputs)`.
    """
    import numpy as np
    import torch

    scale = torch.from_numpy(np.array(scales, np.float32))
    out = np.empty(matrix.shape, np.int8)

    def rounded(w: Any, column: int) -> Any:
        code = torch.clamp(torch.round(w[:, column] / scale), -_TOP, _TOP)
        out[:, column] = code.to(torch.int8).numpy()
        return code * scale

    carry_errors(matrix, hessian, rounded)
    return out
