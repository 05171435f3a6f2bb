"""How frames lie in an artifact's inputs and outputs: frames first here, anywhere there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]


def frame_shape(port: Port) -> tuple[int, ...]:
    """The shape of one frame of one sequence; of the whole value where there is no time axis.

    Raises:
        ArtifactError: a free axis is neither the batch nor the time axis.
    """
    shape = port.shape(batch=1, frames=1)
    free = (port.batch_axis, port.time_axis)
    return tuple(size for axis, size in enumerate(shape) if axis not in free)


def to_port(port: Port, block: Array) -> Array:
    """One sequence, `[frames, ...]` or `[...]` without a time axis, in the port's layout."""
    axes = _free_axes(port)
    sequence = block if port.batch_axis is None else block[np.newaxis]
    return np.moveaxis(sequence, range(len(axes)), axes)


def from_port(port: Port, array: Array) -> Array:
    """The first sequence in the port's layout as `[frames, ...]`, or `[...]`."""
    axes = _free_axes(port)
    sequences = np.moveaxis(array, axes, range(len(axes)))
    return sequences if port.batch_axis is None else sequences[0]


def cast(port: Port, array: Array, source: str) -> Array:
    """The array in the port's dtype, where no value changes but by rounding.

    Args:
        port: the input it is for.
        array: the values.
        source: where they come from, for the error.

    Raises:
        InputError: the values are of another kind, or out of the dtype's range.
    """
    if array.dtype == port.dtype:
        return array
    if np.can_cast(array.dtype, port.dtype, "same_kind"):
        with np.errstate(over="ignore"):
            values = array.astype(port.dtype)
        lost = values != array if values.dtype.kind in "iu" else np.isinf(values) > np.isinf(array)
        if not lost.any():
            return values
    raise InputError(
        f"{source!r} holds values of {array.dtype} that input {port} cannot take",
        hint=f"Convert them: x.astype(np.{port.dtype}).",
    )


def _free_axes(port: Port) -> list[int]:
    return [axis for axis in (port.batch_axis, port.time_axis) if axis is not None]
