"""Rounds weights: to int8 by rows, to few bits by blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_LARGEST = 127
_LARGEST_IN_PAIR = 64
# How much of a block's range is tried, by bits: steps of eight are small enough.
_PARTS_OF_RANGE: dict[int, list[float]] = {4: np.linspace(0.975, 0.6, 16).tolist(), 8: []}

Floats = npt.NDArray[np.float32]


def quantize_rows(array: Floats, summed: tuple[int, ...]) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round each row to `-127 .. 127` steps of its own scale.

    Args:
        array: weights, float32, any shape.
        summed: the axes within one row, those the layer sums over.

    Returns:
        The codes, int8 in the shape of `array`, and the scales, float32 with the summed axes kept
        as 1; `codes * scales` is within half a scale of `array`.
    """
    scale = _nonzero(np.abs(array).max(axis=summed, keepdims=True) / np.float32(_LARGEST))
    return to_codes(array, scale), scale


def computing_scales(array: Floats) -> Floats:
    """Scales of rows that no CPU saturates on: of weights `[..., features]`, `[..., 1]`.

    x86 CPUs without VNNI add the products of features 2k and 2k + 1 with uint8 activations in 16
    bits. With these scales the codes of one sign in such a pair add up to 128 at most: 255 * 128 is
    in range. They are never greater than those of seven bits, which take 64 codes of each sign.
    """
    pairs = _nonzero(_pair_sums(array).max(-1, keepdims=True) / np.float32(_LARGEST))
    return np.minimum(pairs, _nonzero(np.abs(array).max(-1, keepdims=True) / _LARGEST_IN_PAIR))


def to_codes(array: Floats, scale: Floats) -> npt.NDArray[np.int8]:
    """`array` in whole steps of `scale`, int8."""
    codes: npt.NDArray[np.int8] = np.clip(np.rint(array / scale), -_LARGEST, _LARGEST).astype(
        np.int8
    )
    return codes


def _pair_sums(array: Floats) -> Floats:
    """What the weights of one sign add up to in each pair of features, the greater of both."""
    odd = array.shape[-1] % 2
    pairs = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, odd)])
    pairs = pairs.reshape(*array.shape[:-1], -1, 2)
    sums: Floats = np.maximum(np.maximum(pairs, 0).sum(-1), np.maximum(-pairs, 0).sum(-1))
    return sums


def _nonzero(scale: Array) -> Floats:
    """Rows of zeros have a scale, too."""
    return np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)


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
    """Round each block of a row to `2**bits` steps of its own, one of which is zero.

    Args:
        array: weights, float32 `[..., rows, features]`.
        bits: 4 or 8.
        block_size: how many weights of a row share a scale.
    """
    grouped = in_blocks(array, block_size)
    scale, zero = block_scales(grouped, bits)
    return rounded(steps_of(grouped, scale[..., None], zero[..., None], bits), scale, zero)


def in_blocks(array: Array, block_size: int) -> Array:
    """Rows `[..., features]` as `[..., blocks, block_size]`, the last block filled with zeros."""
    *rows, features = array.shape
    blocks = -(-features // block_size)
    padding = [(0, 0)] * len(rows) + [(0, blocks * block_size - features)]
    return np.pad(array, padding).reshape(*rows, blocks, block_size)


def steps_of(weights: Array, scale: Array, zero: Array, bits: int) -> Array:
    """Weights in whole steps of a scale, counted so that `zero` is 0, as far as the bits reach."""
    steps: Array = np.clip(np.rint(weights / scale) + zero, 0, 2**bits - 1)
    return steps


def rounded(codes: Array, scales: Array, zeros: Array) -> Rounded:
    """The same, in the dtypes that are kept."""
    halves = _in_float16(scales)
    kept = np.float16 if (halves == scales).all() else np.float32
    return Rounded(codes.astype(np.uint8), scales.astype(kept), zeros.astype(np.uint8))


def block_scales(blocks: Array, bits: int, energy: Array | float = 1.0) -> tuple[Array, Array]:
    """The scale of each block of weights `[..., block_size]`, and its code of zero.

    Of four bits, those that leave the least error: where the ends of a block are cut off, all
    between them is nearer.

    Args:
        blocks: the weights.
        bits: 4 or 8.
        energy: how much the error of each weight counts, as `blocks` or one of its rows.
    """
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)  # zero is exact
    scale, zero = _scales(low, high, bits)
    least = _errors(blocks, scale, zero, bits, energy)
    for part in _PARTS_OF_RANGE[bits]:
        tried = _scales(part * low, part * high, bits)
        errors = _errors(blocks, *tried, bits, energy)
        better = errors < least
        least = np.where(better, errors, least)
        scale, zero = (np.where(better, n, o) for n, o in zip(tried, (scale, zero), strict=True))
    return scale, zero


def _scales(low: Array, high: Array, bits: int) -> tuple[Array, Array]:
    """Of blocks from `low` to `high`."""
    steps = 2**bits - 1
    scale = np.maximum((high - low) / steps, np.finfo(np.float32).tiny)
    halves = _in_float16(scale)
    scale = np.where(halves <= 1.001 * scale, halves, scale)  # the rounding is by what is kept
    return scale, np.clip(np.rint(-low / scale), 0, steps)


def _errors(blocks: Array, scale: Array, zero: Array, bits: int, energy: Array | float) -> Array:
    """What rounding does to each block, squared and summed."""
    scale, zero = scale[..., None], zero[..., None]
    off = blocks - (steps_of(blocks, scale, zero, bits) - zero) * scale
    errors: Array = (energy * np.square(off)).sum(-1)
    return errors


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
