"""Matrices to blocks of few bits: round to nearest, k-quant, HQQ and GPTQ.

The layout is that of ONNX Runtime's `MatMulNBits`: rows are outputs, each row is cut into blocks
of inputs, each block has a scale and a zero point. TFLite's is the same with the zero point in the
middle (`symmetric`) and scales of 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import require

if TYPE_CHECKING:
    import numpy as np

METHODS = ("rtn", "kquant", "hqq", "gptq")
_AT_ONCE = 1 << 24  # values rounded together
_DAMPING = 0.01  # of the Hessian's mean diagonal, as in the GPTQ paper
_COLUMNS = 128  # columns whose errors are carried over together
_LEAST_HALF = 6.2e-5  # smaller numbers lose precision in 16 bits
_SHRINKS = 24  # how many smaller ranges are tried for each block


@dataclass(frozen=True)
class Blocks:
    """A quantized matrix: `data` uint8 `(outputs, blocks, bytes)`, `scales` float32 `(outputs, blocks)`,
    `zero_points` uint8 `(outputs, ceil(blocks * bits / 8))`."""

    data: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    bits: int
    block_size: int

    @property
    def n_bytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes + self.zero_points.nbytes

    def dequantize(self, n_inputs: int) -> np.ndarray:
        """The matrix that the runtime computes with, float32 `(outputs, inputs)`."""
        import numpy as np

        q = _unpack(self.data, self.bits).astype(np.float32)
        n_blocks = self.scales.shape[1]
        zeros = _unpack(self.zero_points, self.bits)[:, :n_blocks].astype(np.float32)
        values = (q - zeros[:, :, None]) * self.scales[:, :, None]
        out: np.ndarray = values.reshape(len(values), -1)[:, :n_inputs]
        return out


def quantize(
    matrix: np.ndarray,
    bits: int,
    block_size: int,
    method: str,
    hessian: np.ndarray | None = None,
    *,
    symmetric: bool = False,
) -> Blocks:
    """`matrix` float32 `(outputs, inputs)` to blocks.

    `hessian` is the mean of x x^T over calibration inputs, float32 `(inputs, inputs)`; with it,
    `gptq` carries each column's error over to the columns after it (Frantar et al. 2022,
    "GPTQ"), and chooses ranges by the error weighted with its diagonal. The other methods do not
    look at it: `rtn` rounds to nearest, `kquant` and `hqq` are ONNX Runtime's own. `symmetric`
    is for `rtn` and `gptq`: every zero point is the middle, every scale has 16 bits.
    """
    import numpy as np

    if method == "gptq" and hessian is not None:
        return _gptq(matrix, bits, block_size, hessian, symmetric)
    if method in ("kquant", "hqq") and bits == 4:
        return _onnxruntime(matrix, bits, block_size, method)
    if matrix.size > _AT_ONCE and len(matrix) > 1:  # rows do not depend on each other: bounded memory
        rows = max(1, _AT_ONCE // matrix.shape[1])
        parts = [
            quantize(matrix[i : i + rows], bits, block_size, "rtn", symmetric=symmetric)
            for i in range(0, len(matrix), rows)
        ]
        data, scales, zero_points = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("data", "scales", "zero_points")
        )
        return Blocks(data, scales, zero_points, bits, block_size)
    blocks = _padded(matrix, block_size)
    ones = np.ones(blocks.shape[2], np.float32)
    scales, zeros = _ranges(blocks, bits, ones, shrinks=1, symmetric=symmetric)
    q = np.clip(np.rint(blocks / scales[..., None]) + zeros[..., None], 0, 2**bits - 1)
    return packed(q.astype(np.uint8), scales, zeros, bits, block_size)


def _padded(matrix: np.ndarray, block_size: int) -> np.ndarray:
    """`(outputs, blocks, block_size)`, zeros at the end of a row that is no multiple of it."""
    import numpy as np

    rest = -matrix.shape[1] % block_size
    padded = np.pad(matrix, ((0, 0), (0, rest))) if rest else matrix
    return np.ascontiguousarray(padded, np.float32).reshape(len(matrix), -1, block_size)


def _ranges(
    blocks: np.ndarray, bits: int, weight: np.ndarray, *, shrinks: int, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each block `(..., block_size)`: of several ranges, the one with the least weighted error.

    The range holds zero, so that padding and pruned weights stay exactly zero.
    """
    import numpy as np

    top = 2**bits - 1
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    best_scale = best_zero = best_error = None
    for step in range(shrinks):
        keep = 1.0 - 0.5 * step / max(1, shrinks)
        if symmetric:
            middle = 2 ** (bits - 1)
            scale = np.maximum(-low, high) * keep / (middle - 1)
            scale = np.maximum(scale, _LEAST_HALF).astype(np.float16).astype(np.float32)
            zero = np.full_like(scale, middle)
        else:
            scale = np.maximum((high - low) * keep / top, 1e-10).astype(np.float32)
            zero = np.clip(np.rint(-low * keep / scale), 0, top).astype(np.float32)
        if shrinks == 1:
            return scale, zero
        q = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, top)
        error = (np.square((q - zero[..., None]) * scale[..., None] - blocks) * weight).sum(-1)
        if best_error is None:
            best_scale, best_zero, best_error = scale, zero, error
        else:
            better = error < best_error
            best_scale = np.where(better, scale, best_scale)
            best_zero = np.where(better, zero, best_zero)
            best_error = np.where(better, error, best_error)
    return best_scale, best_zero  # type: ignore[return-value]


def _gptq(matrix: np.ndarray, bits: int, block_size: int, hessian: np.ndarray, symmetric: bool) -> Blocks:
    """GPTQ with ranges chosen block by block when their turn comes."""
    import numpy as np
    import torch

    top = 2**bits - 1
    n_out, n_in = matrix.shape
    n_blocks = -(-n_in // block_size)
    q = np.zeros((n_out, n_blocks * block_size), np.uint8)
    scales = np.empty((n_out, n_blocks), np.float32)
    zeros = np.empty((n_out, n_blocks), np.float32)
    weight = np.array(hessian, np.float64).diagonal().astype(np.float32)

    scale = zero = torch.empty(0)  # of the block that a column is in

    def rounded(w: Any, column: int) -> Any:
        nonlocal scale, zero
        if column % block_size == 0:
            b, stop = column // block_size, min(column + block_size, n_in)
            here = w[:, column:stop].numpy()
            scales[:, b], zeros[:, b] = _ranges(here, bits, weight[column:stop], shrinks=_SHRINKS, symmetric=symmetric)
            scale, zero = torch.from_numpy(scales[:, b].copy()), torch.from_numpy(zeros[:, b].copy())
        code = torch.clamp(torch.round(w[:, column] / scale) + zero, 0, top)
        q[:, column] = code.to(torch.uint8).numpy()
        return (code - zero) * scale

    carry_errors(matrix, hessian, rounded, at_once=max(_COLUMNS, block_size))
    if n_blocks * block_size > n_in:
        q[:, n_in:] = zeros[:, -1:].astype(np.uint8)
    return packed(q.reshape(n_out, n_blocks, block_size), scales, zeros, bits, block_size)


def carry_errors(
    matrix: np.ndarray, hessian: np.ndarray, rounded: Callable[[Any, int], Any], *, at_once: int = _COLUMNS
) -> None:
    """GPTQ's loop: round column after column, and carry each one's error over to those after it.

    `rounded(w, column)` gives what `w[:, column]` becomes, float32 `(outputs,)`; `w` is `matrix` with the errors so
    far, a tensor. Errors reach columns beyond the next `at_once` together.
    """
    import numpy as np
    import torch

    n_out, n_in = matrix.shape
    h = torch.from_numpy(np.array(hessian, np.float64))
    h += torch.eye(n_in, dtype=h.dtype) * (_DAMPING * float(h.diagonal().mean()) + 1e-12)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
    w = torch.from_numpy(np.array(matrix, np.float32))
    for begin in range(0, n_in, at_once):
        end = min(begin + at_once, n_in)
        part, errors = w[:, begin:end], torch.zeros(n_out, end - begin)
        triangle = inverse[begin:end, begin:end]
        for i in range(end - begin):
            error = (part[:, i] - rounded(w, begin + i)) / triangle[i, i]
            part[:, i:] -= error[:, None] * triangle[i, i:][None]
            errors[:, i] = error
        w[:, end:] -= errors @ inverse[begin:end, end:]


def _onnxruntime(matrix: np.ndarray, bits: int, block_size: int, method: str) -> Blocks:
    """ONNX Runtime's own quantizer, on a model with nothing but this product."""
    require("onnxruntime", extra="onnx", purpose="quantizing to ONNX blocks")
    import contextlib
    import io
    import logging
    import warnings

    import numpy as np
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    for name in (nbits.__name__, "neural_compressor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    n_out, n_blocks = matrix.shape[0], -(-matrix.shape[1] // block_size)
    made_blocks = n_blocks
    if method == "kquant" and n_blocks % 2:
        # Its zero points are two to a byte, and it fails where a row ends in the middle of one.
        made_blocks += 1
        matrix = np.pad(matrix, ((0, 0), (0, made_blocks * block_size - matrix.shape[1])))
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [shape("x", 1, [1, matrix.shape[1]])],
        [shape("y", 1, [1, matrix.shape[0]])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(matrix.T, np.float32), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    config: Any = (
        nbits.KQuantWeightOnlyQuantConfig()
        if method == "kquant"
        else nbits.HQQWeightOnlyQuantConfig(block_size=block_size, bits=bits)
    )
    quantizer = nbits.MatMulNBitsQuantizer(
        model, bits=bits, block_size=block_size, is_symmetric=False, accuracy_level=4, algo_config=config
    )
    # It draws a progress bar of its own, and numpy and torch have things to say that are not for our users.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        quantizer.process()
    made = quantizer.model.model
    product = next(n for n in made.graph.node if n.op_type == "MatMulNBits")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    data, scales, zeros = (stored[name] for name in product.input[1:4])
    data, scales = data.reshape(n_out, made_blocks, -1), scales.reshape(n_out, made_blocks).astype(np.float32)
    if zeros.dtype != np.uint8:  # HQQ leaves fractional zero points, which GatherBlockQuantized cannot take
        zeros = _pack(np.clip(np.rint(zeros.reshape(n_out, n_blocks)), 0, 2**bits - 1).astype(np.uint8), bits)
    zeros = zeros.reshape(n_out, -1)
    return Blocks(data[:, :n_blocks], scales[:, :n_blocks], zeros, bits, block_size)


def packed(q: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int, block_size: int) -> Blocks:
    """Steps `(outputs, blocks, block_size)` as they are stored; scales and zero points are `(outputs, blocks)`."""
    import numpy as np

    return Blocks(_pack(q, bits), scales.astype(np.float32), _pack(zeros.astype(np.uint8), bits), bits, block_size)


def _pack(q: np.ndarray, bits: int) -> np.ndarray:
    """Low-order bits first along the last dimension."""
    import numpy as np

    if bits == 8:
        return q
    per_byte = 8 // bits
    rest = -q.shape[-1] % per_byte
    if rest:
        q = np.concatenate([q, np.zeros((*q.shape[:-1], rest), np.uint8)], axis=-1)
    parts = q.reshape(*q.shape[:-1], -1, per_byte)
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    out: np.ndarray = np.bitwise_or.reduce(parts << shifts, axis=-1)
    return out


def _unpack(data: np.ndarray, bits: int) -> np.ndarray:
    import numpy as np

    if bits == 8:
        return data
    mask = 2**bits - 1
    return np.stack([(data >> (bits * i)) & mask for i in range(8 // bits)], -1).reshape(*data.shape[:-1], -1)
