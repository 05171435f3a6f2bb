"""What the searches and decoders are given, held before anything is computed or changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.errors import InputError

Scores = npt.NDArray[np.float64]


def hold_count(name: str, value: Any, least: int = 1) -> int:
    """`value`, where it is an integer of at least `least`.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return value


def hold_number(
    name: str, value: Any, *, above: float = -math.inf, most: float = math.inf
) -> float:
    """`value` as a float, where it is a finite number above `above` and at most `most`.

    Raises:
        InputError: it is not.
    """
    real = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not real or not above < value <= most or math.isinf(value):
        raise InputError(
            f"{name} is {value!r}; it must be a number above {above} and at most {most}"
        )
    return float(value)


def hold_lengths(name: str, lengths: npt.NDArray[Any], frames: int) -> None:
    """Refuse lengths that the sequences in `name`, of so many frames, cannot have.

    Raises:
        InputError: one is below 1 or above `frames`.
    """
    outside = np.flatnonzero((lengths < 1) | (lengths > frames))
    if frames and len(outside):
        raise InputError(
            f"lengths[{outside[0]}] is {lengths[outside[0]]}, but {name} has {frames} frames",
            hint="Give each sequence's length, 1 to the size of the time axis.",
        )


def hold_scores(name: str, value: Any, *axes: str | int) -> Scores:
    """`value` as float64, where it has these axes and holds scores.

    Args:
        name: what the error calls it.
        value: an array, or lists of numbers.
        axes: the name of each axis, or its size.

    Raises:
        InputError: it has other axes, no class along the last one, is not of real numbers, or holds
            NaN or +infinity.
    """
    array = _converted(name, value)
    if not _has_axes(array, axes):
        raise InputError(
            f"{name} has shape {list(array.shape)}, but [{', '.join(map(str, axes))}] is taken",
            hint=f"Give an array of {len(axes)} axes in that order, the last one not empty.",
        )
    wrong = ~(array < np.inf)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{name} holds {array[where]} at index {list(where)}",
            hint="Look for NaN and infinity in what the network was given.",
        )
    return array


def _converted(name: str, value: Any) -> Scores:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} is {array.dtype}; it must be an array of real numbers")
    return array.astype(np.float64)


def _has_axes(array: Scores, axes: tuple[str | int, ...]) -> bool:
    sizes = zip(array.shape, axes, strict=False)
    fits = all(size == axis for size, axis in sizes if isinstance(axis, int))
    return fits and array.ndim == len(axes) and array.shape[-1] > 0
