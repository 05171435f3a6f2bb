"""Compares two arrays strictly: shape, dtype, NaN and infinity must agree, values be near."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RTOL = 1e-4
ATOL = 1e-5


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far an array is from its reference.

    Attributes:
        passed: whether |actual - reference| <= atol + rtol * |reference| everywhere, and shape,
            dtype, NaN and infinity agree.
        max_abs: the largest |actual - reference|; infinite where the arrays are not comparable.
        required_atol: the smallest atol that would have passed with this rtol.
        index: of the element that needs the largest atol; None where nothing differs.
        reason: why the arrays are not comparable, or None.
    """

    passed: bool
    max_abs: float
    required_atol: float
    index: tuple[int, ...] | None = None
    reason: str | None = None


def compare(
    actual: Array,
    reference: Array,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    exact: Array | None = None,
    slack: Array | float = 0.0,
) -> Comparison:
    """Hold `actual` against `reference`, both of any one shape and dtype.

    Args:
        actual: what is held.
        reference: what it is held against.
        rtol, atol: how near.
        exact: the reference's values in float64, where they are known better.
        slack: what is allowed besides, of a shape that broadcasts.
    """
    if actual.shape != reference.shape:
        return _incomparable(f"shape {list(actual.shape)} instead of {list(reference.shape)}")
    if actual.dtype != reference.dtype:
        return _incomparable(f"dtype {actual.dtype} instead of {reference.dtype}")
    if actual.size == 0:
        return Comparison(True, 0.0, 0.0)
    wanted = (reference if exact is None else exact).astype(np.float64)
    return _compare_values(actual.astype(np.float64), wanted, rtol, atol, slack)


def _compare_values(
    actual: Array, reference: Array, rtol: float, atol: float, slack: Array | float
) -> Comparison:
    same = (actual == reference) | (np.isnan(actual) & np.isnan(reference))
    broken = ~same & ~(np.isfinite(actual) & np.isfinite(reference))
    if broken.any():
        index = _index(int(np.argmax(broken)), actual)
        return _incomparable(f"{actual[index]} instead of {reference[index]}", index)
    distance = np.abs(np.where(same, 0.0, actual) - np.where(same, 0.0, reference))
    needed = distance - rtol * np.where(same, 0.0, np.abs(reference)) - slack
    worst = int(np.argmax(np.where(same, -math.inf, needed)))
    required = max(0.0, float(needed.flat[worst]))
    where = _index(worst, actual) if distance.any() else None
    return Comparison(required <= atol, float(distance.max()), required, where)


def _index(flat: int, array: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, array.shape))


def _incomparable(reason: str, index: tuple[int, ...] | None = None) -> Comparison:
    return Comparison(False, math.inf, math.inf, index, reason)
