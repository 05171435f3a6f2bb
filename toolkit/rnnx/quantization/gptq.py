"""GPTQ: rounds the weights of a layer so that its outputs on real inputs change least.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv:2210.17323): column after column is rounded, and the columns to come make up for the error,
as the inverse of the inputs' second moments (the Hessian of the squared error) says they best do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.quantization.rows import Rounded, block_scales, rounded

Array = npt.NDArray[Any]

_DAMPING = 0.01  # of the mean of the diagonal, so that the inverse is no larger than it means


def gptq(weight: Array, hessian: Array, bits: int, block_size: int) -> Rounded:
    """Round as `round_blocks` does, but so that `x @ weight.T` changes least.

    Args:
        weight: float32 `[rows, features]`.
        hessian: the sum of `x.T @ x` over the inputs `[frames, features]`, float64.
        bits: 4 or 8.
        block_size: how many weights of a row share a scale.
    """
    rows, features = weight.shape
    blocks = -(-features // block_size)
    left = np.pad(weight.astype(np.float64), ((0, 0), (0, blocks * block_size - features)))
    inverse = _inverse(hessian)
    codes = np.zeros(left.shape, np.uint8)
    scales, zeros = (np.zeros((rows, blocks)) for _ in range(2))
    for block in range(blocks):
        columns = slice(block * block_size, (block + 1) * block_size)
        scale, zero = block_scales(left[:, columns], bits)
        scales[:, block], zeros[:, block] = scale, zero
        codes[:, columns] = zero[:, None]  # padding is zero
        for j in range(columns.start, min(columns.stop, features)):
            codes[:, j] = np.clip(np.rint(left[:, j] / scale) + zero, 0, 2**bits - 1)
            error = (left[:, j] - (codes[:, j] - zero) * scale) / inverse[j, j]
            left[:, j + 1 : features] -= np.outer(error, inverse[j, j + 1 :])
    return rounded(codes.reshape(rows, blocks, -1), scales, zeros)


def _inverse(hessian: Array) -> Array:
    """The upper Cholesky factor of the inverse; inputs that are always zero do not matter."""
    damped = hessian.astype(np.float64)
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = max(float(diagonal.mean()), 1.0)
    damped[np.diag_indices_from(damped)] = diagonal + _DAMPING * diagonal.mean()
    upper: Array = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper
