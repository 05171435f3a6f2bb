"""Rounds weights: to int8 by rows, to few bits by blocks; and how much of int8 a CPU can take."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FULL_RANGE = 127
# onnxruntime multiplies uint8 activations with int8 weights and adds two products in 16 bits:
# 2 * 255 * 127 overflows, 2 * 255 * 64 does not.
REDUCED_RANGE = 64

_CPUINFO = Path("/proc/cpuinfo")


def quantize_rows(
    array: npt.NDArray[np.float32], summed: tuple[int, ...], largest: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round each row to `-largest .. largest` steps of its own scale.

    Args:
        array: weights, float32, any shape.
        summed: the axes within one row, those the layer sums over.
        largest: the code of a row's largest magnitude, 127 at most.

    Returns:
        The codes, int8 in the shape of `array`, and the scales, float32 with the summed axes kept
        as 1; `codes * scales` is within half a scale of `array`.
    """
    magnitude = np.abs(array).max(axis=summed, keepdims=True)
    scale = np.maximum(magnitude / np.float32(largest), np.finfo(np.float32).tiny)  # rows of zeros
    codes = np.clip(np.rint(array / scale), -largest, largest)
    return codes.astype(np.int8), scale.astype(np.float32)


class Rounded(NamedTuple):
    """Weights rounded in blocks.

    Attributes:
        codes: uint8 `[..., rows, blocks, block_size]`; a block that is not full ends in zeros.
        scales: float16 `[..., rows, blocks]`, float32 where that is too coarse.
        zeros: the codes of zero, uint8 `[..., rows, blocks]`.
    """

    codes: Array
    scales: Array
    zeros: Array


class Blocked(NamedTuple):
    """Weights `[rows, features]` as com.microsoft.MatMulNBits takes them.

    Attributes:
        codes: uint8 `[rows, blocks, block_size * bits / 8]`, the first of two codes in a byte in
            its lower half.
        scales: float32 `[rows, blocks]`.
        zeros: the codes of zero, uint8 `[rows, blocks * bits / 8, rounded up]`.
    """

    codes: Array
    scales: Array
    zeros: Array


def round_blocks(array: npt.NDArray[np.float32], bits: int, block_size: int) -> Rounded:
    """Round each block of a row to `2**bits` steps between its least and its greatest weight.

    Args:
        array: weights, float32 `[..., rows, features]`.
        bits: 4 or 8.
        block_size: how many weights of a row share a scale.
    """
    *rows, features = array.shape
    blocks = -(-features // block_size)
    padding = [(0, 0)] * len(rows) + [(0, blocks * block_size - features)]
    grouped = np.pad(array, padding).reshape(*rows, blocks, block_size)
    scale, zero = block_scales(grouped, bits)
    codes = np.rint(grouped / scale[..., None]) + zero[..., None]
    return rounded(np.clip(codes, 0, 2**bits - 1), scale, zero)


def rounded(codes: Array, scales: Array, zeros: Array) -> Rounded:
    """The same, in the dtypes that are kept."""
    halves = _in_float16(scales)
    kept = np.float16 if (halves == scales).all() else np.float32
    return Rounded(codes.astype(np.uint8), scales.astype(kept), zeros.astype(np.uint8))


def block_scales(blocks: Array, bits: int) -> tuple[Array, Array]:
    """The scale of each block of weights `[..., block_size]`, and its code of zero."""
    steps = 2**bits - 1
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)  # zero is exact
    scale = np.maximum((high - low) / steps, np.finfo(np.float32).tiny)
    halves = _in_float16(scale)
    scale = np.where(halves <= 1.001 * scale, halves, scale)  # the rounding is by what is kept
    return scale, np.clip(np.rint(-low / scale), 0, steps)


def _in_float16(scales: Array) -> Array:
    """The next float16 that is no less, as float64."""
    with np.errstate(over="ignore"):
        small = scales.astype(np.float16)
    above = np.nextafter(small, np.float16(np.inf))
    return np.where(small < scales, above, small).astype(np.float64)


def packed_blocks(made: Rounded, bits: int) -> Blocked:
    """What was rounded `[rows, blocks, block_size]`, as the kernel takes it."""
    codes, scales, zeros = made
    return Blocked(_packed(codes, bits), scales.astype(np.float32), _packed(zeros, bits))


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes of four bits, two in a byte along the last axis."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], -1)
    packed = codes[..., ::2] | np.left_shift(codes[..., 1::2], 4)
    return packed.astype(np.uint8)


def needs_reduced_range() -> bool:
    """Whether int8 sums overflow on this CPU: x86 without VNNI, or x86 that does not say."""
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686", "x86"}:
        return False
    try:
        flags = _CPUINFO.read_text().split()
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags
