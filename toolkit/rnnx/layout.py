"""How frames lie in an artifact's inputs and outputs: frames first here, anywhere there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Contract, Port
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


def columns(port: Port) -> list[str]:
    """A name for each value of a frame: `x0`, `x1`, ...; `x1_0`, ... for a port named `x1`."""
    stem = f"{port.name}_" if port.name[-1:].isdigit() else port.name
    return [f"{stem}{index}" for index in range(math.prod(frame_shape(port)))]


def value_range(port: Port) -> tuple[float, float]:
    """The least and the greatest number that the port's dtype, or its table of ids, can take."""
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        info = np.finfo(dtype)
        high = float(info.max) * (1 + float(info.eps) / 4)  # half a step above still rounds down
        return -high, high
    if dtype.kind == "b" or port.num_embeddings is not None:
        return 0, (port.num_embeddings or 2) - 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def only_input(contract: Contract, path: str) -> Port:
    """The artifact's input.

    Raises:
        InputError: it has several, and the file at `path` can hold one.
    """
    if len(contract.inputs) != 1:
        names = ", ".join(port.name for port in contract.inputs)
        raise InputError(
            f"the artifact has {len(contract.inputs)} inputs ({names}), but {path!r} holds one",
            hint="Give an .npz file of arrays by input name, or JSON lines with its keys.",
        )
    return contract.inputs[0]


def block_to_port(port: Port, block: Array) -> Array:
    """Frames `[frames, ...]` in the port's layout; the last where it has no time axis."""
    return to_port(port, block if port.time_axis is not None else block[-1])


def _free_axes(port: Port) -> list[int]:
    return [axis for axis in (port.batch_axis, port.time_axis) if axis is not None]
