"""Symmetric int8 with one scale for each output row, and how much of int8 a CPU can take."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import numpy.typing as npt

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


def needs_reduced_range() -> bool:
    """Whether int8 sums overflow on this CPU: x86 without VNNI, or x86 that does not say."""
    if platform.machine().lower() not in {"x86_64", "amd64", "i386", "i686", "x86"}:
        return False
    try:
        flags = _CPUINFO.read_text().split()
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags
