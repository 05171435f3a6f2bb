"""The inputs a quantization is measured on: the user's, held against the contract, or random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.runs import Runs, read_runs
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import fit_inputs
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Calibration = Runs

_FRAMES = 64


def read_calibration(calibration: Calibration, contract: Contract) -> list[Feeds]:
    """The calibration data as runs: arrays by input name.

    Args:
        calibration: one run or an iterable of runs. A run is an array where the artifact has one
            input, a mapping of arrays by input name, or the path of an `.npy` or `.npz` file of
            the same.
        contract: what the inputs must fit.

    Raises:
        InputError: it cannot be read, is empty, holds NaN or infinity or one value only, or a name,
            dtype or shape does not fit the artifact.
    """
    runs = [fit_inputs(contract, run) for run in read_runs(calibration, "calibration data")]
    if not runs:
        raise InputError("the calibration data is empty", hint="Give at least one sequence.")
    for run in runs:
        _refuse_unusable(run)
    if all(_is_constant(name, runs) for name in runs[0]):
        raise InputError(
            "the calibration data holds one value only, so it measures nothing",
            hint="Give sequences as the artifact will see them.",
        )
    return runs


def random_calibration(contract: Contract) -> list[Feeds]:
    """One run of random inputs: one sequence where the artifact streams, else two.

    Raises:
        ArtifactError: an input has more free axes than a batch and a time axis.
    """
    ports = tuple(_with_axes(port) for port in contract.inputs)
    batch = 1 if contract.streaming else 2
    rng = np.random.default_rng(0)
    frames = _FRAMES * contract.first_chunk
    return [random_inputs(replace(contract, inputs=ports), rng, batch=batch, frames=frames)]


def _with_axes(port: Port) -> Port:
    """The port with axes that ONNX from elsewhere does not tell: batch first, then time."""
    free = [axis for axis, dim in enumerate(port.dims) if isinstance(dim, str)]
    if not free or port.batch_axis is not None or port.time_axis is not None:
        return port
    batch, *others = free if free[0] == 0 else [None, *free]
    return replace(port, batch_axis=batch, time_axis=next(iter(others), None))


def _refuse_unusable(run: Feeds) -> None:
    for name, array in run.items():
        if not array.size:
            raise InputError(
                f"the calibration data for input {name!r} is empty: shape {list(array.shape)}"
            )
        if not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise InputError(
                f"the calibration data for input {name!r} holds {array[tuple(where)]} at {where}",
                hint="Clean the data: what the artifact does with such values is not measured.",
            )


def _is_constant(name: str, runs: list[Feeds]) -> bool:
    first = runs[0][name].flat[0]
    return all(bool((run[name] == first).all()) for run in runs)
