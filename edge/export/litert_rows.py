"""Rows of 8 bits whose rounding errors are carried over to other columns, under the scales that a file already has.

A TFLite file repeats the scales of a row in every signature that uses its matrix, so they stay as they are: only the
codes are chosen again, by GPTQ (Frantar et al. 2022), as `edge.export.blocks` does it for blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_DAMPING = 0.01  # of the Hessian's mean diagonal
_COLUMNS = 128  # columns whose errors are carried over together
_TOP = 127


def codes(matrix: np.ndarray, scales: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """int8 `(outputs, inputs)` for `matrix` float32, with `scales` float32 `(outputs,)`.

    `hessian` is the mean of x x^T over calibration inputs, float32 `(inputs, inputs)`.
    """
    import numpy as np
    import torch

    n_out, n_in = matrix.shape
    h = torch.from_numpy(np.array(hessian, np.float64))
    h += torch.eye(n_in, dtype=h.dtype) * (_DAMPING * float(h.diagonal().mean()) + 1e-12)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
    w, scale = torch.from_numpy(np.array(matrix, np.float32)), torch.from_numpy(np.array(scales, np.float32))
    out = np.empty((n_out, n_in), np.int8)
    for begin in range(0, n_in, _COLUMNS):
        end = min(begin + _COLUMNS, n_in)
        part, errors = w[:, begin:end], torch.zeros(n_out, end - begin)
        triangle = inverse[begin:end, begin:end]
        for i in range(end - begin):
            code = torch.clamp(torch.round(part[:, i] / scale), -_TOP, _TOP)
            out[:, begin + i] = code.to(torch.int8).numpy()
            error = (part[:, i] - code * scale) / triangle[i, i]
            part[:, i:] -= error[:, None] * triangle[i, i:][None]
            errors[:, i] = error
        w[:, end:] -= errors @ inverse[begin:end, end:]
    return out
