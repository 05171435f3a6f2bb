"""NumPy files as whole sequences, memory-mapped where they can be."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.layout import frame_shape, to_port
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]


def open_npy(path: str, port: Port) -> dict[str, Array]:
    """The array of an .npy file, in the layout of `port`.

    Raises:
        InputError: the file is damaged, or its array does not fit.
    """
    with _refusing_damage(path):
        array = np.lib.format.open_memmap(path, mode="r")
    return {port.name: _in_layout(port, array, path)}


def open_npz(path: str, ports: Sequence[Port]) -> dict[str, Array]:
    """The arrays of an .npz file by input name, in the inputs' layouts.

    Raises:
        InputError: the file is damaged, an array is missing or does not fit.
    """
    # Not np.load, which leaves a damaged file open.
    with _refusing_damage(path), open(path, "rb") as file:
        loaded = np.lib.npyio.NpzFile(file)
        held = list(loaded)
        arrays = {port.name: loaded[port.name] for port in ports if port.name in held}
    missing = [port.name for port in ports if port.name not in arrays]
    if missing:
        raise InputError(
            f"{path!r} lacks the inputs {', '.join(missing)}; it holds {', '.join(held)}",
            hint="Name the arrays like the inputs: np.savez(path, x=...).",
        )
    return {port.name: _in_layout(port, arrays[port.name], path) for port in ports}


@contextmanager
def _refusing_damage(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path!r} is not a sound NumPy file: {error}") from error


def _in_layout(port: Port, array: Array, path: str) -> Array:
    """The array in the port's layout, where it may lack the batch axis and have frames first."""
    shape = frame_shape(port)
    if array.ndim == len(port.dims):
        return _single_sequence(port, array, path)
    if array.ndim == 1 and math.prod(shape) == 1 and port.time_axis is not None:
        array = array.reshape(-1, *shape)
    if array.ndim != len(port.dims) - 1 or array.shape[array.ndim - len(shape) :] != shape:
        raise _misshapen(port, array, path)
    return to_port(port, array)


def _single_sequence(port: Port, array: Array, path: str) -> Array:
    frames = 0 if port.time_axis is None else array.shape[port.time_axis]
    if port.batch_axis is None or array.shape[port.batch_axis] == 1:
        if array.shape != port.shape(batch=1, frames=frames):
            raise _misshapen(port, array, path)
        return array
    raise InputError(
        f"{path!r} holds {array.shape[port.batch_axis]} sequences for input {port}",
        hint="Give one sequence: this command runs one stream.",
    )


def _misshapen(port: Port, array: Array, path: str) -> InputError:
    frames = [] if port.time_axis is None else ["frames"]
    return InputError(
        f"{path!r} holds an array of shape {list(array.shape)} for input {port}",
        hint=f"Give one of shape [{', '.join([*frames, *map(str, frame_shape(port))])}].",
    )
