"""The user's own data: sequences to hold the artifact at, and what a metric needs besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from rnnx.runs import Runs, read_runs
from rnnx_runtime import Contract
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import fit_inputs, refuse_empty, refuse_short, size_along

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """Sequences of one length that are run together.

    Attributes:
        inputs: arrays by input name, `[batch, time, ...]` as the contract says.
        labels: arrays by other names, which only a metric reads.
        batch, frames: how many sequences, and of how many frames.
    """

    inputs: dict[str, Array]
    labels: dict[str, Array]
    batch: int
    frames: int


def read_recordings(data: Runs, contract: Contract, *, has_metric: bool) -> tuple[Recording, ...]:
    """Read the user's data.

    Args:
        data: arrays, mappings of arrays by name, paths of `.npy` and `.npz` files, or an iterable
            of these; one recording each.
        contract: what the inputs must fit.
        has_metric: whether arrays that are no inputs have a use: they are labels then.

    Raises:
        InputError: it cannot be read, is empty, or a name, dtype or shape does not fit.
    """
    runs = read_runs(data, "what a check runs on")
    recordings = tuple(_recording(run, contract, has_metric) for run in runs)
    if not recordings:
        raise InputError("there are no inputs to check with", hint="Give at least one sequence.")
    return recordings


def _recording(run: Array | Mapping[str, Array], contract: Contract, has_metric: bool) -> Recording:
    labels: dict[str, Array] = {}
    if isinstance(run, Mapping) and has_metric:
        names = {port.name for port in contract.inputs}
        labels = {name: array for name, array in run.items() if name not in names}
        run = {name: array for name, array in run.items() if name in names}
    inputs = fit_inputs(contract, run)
    refuse_empty(contract, inputs)
    refuse_short(contract, inputs)
    batch, frames = (size_along(contract, inputs, axis) or 1 for axis in ("batch", "time"))
    return Recording(inputs, labels, batch, frames)
