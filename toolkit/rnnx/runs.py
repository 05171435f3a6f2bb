"""Reads the arrays that a person gives: what a quantization or a check runs the artifact on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]
One = str | os.PathLike[str] | Array | Mapping[str, Array]
Runs = One | Iterable[One]


def read_runs(data: Any, what: str) -> Iterator[Array | Mapping[str, Array]]:
    """The runs in `data`, one after another.

    Args:
        data: one run or an iterable of runs. A run is an array, a mapping of arrays by name, or the
            path of an `.npy` or `.npz` file of the same.
        what: it is, for the errors: `"calibration data"`.

    Raises:
        InputError: it is none of these, or a file cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        yield _load(data)
    elif isinstance(data, Mapping):
        yield data
    elif hasattr(data, "__array__"):
        yield np.asarray(data)
    elif isinstance(data, Iterable):
        for run in data:
            yield from read_runs(run, what)
    else:
        raise InputError(
            f"{what} cannot be a {type(data).__name__}",
            hint="Give an array, arrays by input name, a .npy or .npz file, or several of these.",
        )


def _load(path: str | os.PathLike[str]) -> Array | Mapping[str, Array]:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, Mapping) else np.asarray(loaded)
    except FileNotFoundError as error:
        raise InputError(f"no file at {os.fspath(path)!r}", hint="Check the path.") from error
    except Exception as error:  # numpy and zipfile raise unrelated classes
        raise InputError(
            f"{os.fspath(path)!r} is no .npy or .npz file of plain arrays: {error}",
            hint="Write it with numpy: np.savez(path, input_name=array).",
        ) from error
