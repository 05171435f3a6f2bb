"""GPTQ: rounds the weights of a layer so that its outputs on real inputs change least.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv:2210.17323): column after column is rounded, and the columns to come make up for the error,
as the inverse of the inputs' second moments (the Hessian of the squared error) says they best do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.quantization.rows import Rounded, block_scales, in_blocks, rounded, steps_of

Array = npt.NDArray[Any]

_DAMPING = 0.01  # of the mean of the diagonal, so that the inverse is no larger than it means


def gptq(weight: Array, hessian: Array, bits: int, block_size: int) -> Rounded:
    """Round as `round_blocks` does, but so that `x @ weight.T` changes least.

    Columns that meet the greatest inputs come first, while there are most others to make up for
    them; the scales are found before, so that blocks stay as they lie.

    Args:
        weight: float32 `[rows, features]`.
        hessian: the sum of `x.T @ x` over the inputs `[frames, features]`, float64.
        bits: 4 or 8.
        block_size: how many weights of a row share a scale.
    """
    energy = np.diag(hessian) + _DAMPING * np.diag(hessian).mean()
    blocks = in_blocks(weight.astype(np.float64), block_size)
    scales, zeros = block_scales(blocks, bits, in_blocks(energy, block_size))
    codes = np.broadcast_to(zeros[..., None], blocks.shape).reshape(len(weight), -1).copy()
    order = np.argsort(-energy, kind="stable")
    left, inverse = weight[:, order].astype(np.float64), _inverse(hessian[np.ix_(order, order)])
    for done, column in enumerate(order, 1):
        scale, zero = scales[:, column // block_size], zeros[:, column // block_size]
        now, follows = left[:, done - 1], inverse[done - 1, done - 1 :]
        codes[:, column] = steps_of(now, scale, zero, bits)
        error = (now - (codes[:, column] - zero) * scale) / follows[0]
        left[:, done:] -= np.outer(error, follows[1:])
    return rounded(codes.reshape(blocks.shape), scales, zeros)


def _inverse(hessian: Array) -> Array:
    """The upper Cholesky factor of the inverse; inputs that are always zero do not matter."""
    damped = hessian.astype(np.float64)
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = max(float(diagonal.mean()), 1.0)
    damped[np.diag_indices_from(damped)] = diagonal + _DAMPING * diagonal.mean()
    upper: Array = np.linalg.cholesky(np.linalg.inv(damped)).T
    return upper
