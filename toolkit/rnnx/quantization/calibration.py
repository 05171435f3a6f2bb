"""The inputs a quantization is measured on: the user's, held against the contract, or random."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.runs import Runs, read_runs
from rnnx.user_code import load_function, told
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import fit_inputs, refuse_short, size_along
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Run = Array | Mapping[str, Array]
Calibration = Runs

MOST_STEPS = 100_000  # enough for GPTQ, and soon read and run

_FRAMES = 64
_SUFFIXES = (".npy", ".npz")


def read_calibration(
    calibration: Calibration,
    contract: Contract,
    *,
    has_labels: bool = False,
    complete: Callable[[Run], Run] = lambda run: run,
) -> list[Feeds]:
    """The calibration data as runs: arrays by input name.

    Args:
        calibration: one run or an iterable of runs. A run is an array where the artifact has one
            input, a mapping of arrays by input name, the path of an `.npy` or `.npz` file of the
            same, or of a folder of such files, read in the order of their names. Or
            `"module:function"` or `"path/file.py:function"`: what gives the runs when called
            without arguments, a generator for one. Reading ends with the run that makes it 100,000
            frames over all sequences; where strides make one of several, of those.
        contract: what the inputs must fit.
        has_labels: whether arrays by other names are labels that a metric reads; they are kept.
        complete: adds to a run what may be left out of it.

    Raises:
        InputError: it cannot be read, is empty, too short, holds NaN or infinity or one value only,
            or a name, dtype or shape does not fit the artifact.
        SpecError: `"module:function"` names no function.
    """
    runs, steps = [], 0
    for where, run in _found(calibration):
        with _telling(where):
            feeds, labels = _fitted(complete(run), contract, has_labels)
        runs.append(feeds | labels)
        steps += _steps_of(contract, feeds)
        if steps >= MOST_STEPS:
            break
    _refuse_uninformative(runs, contract)
    return runs


def random_calibration(contract: Contract, batch: int | None = None) -> list[Feeds]:
    """One run of random inputs: without `batch`, one sequence where the artifact streams, else two.

    Raises:
        ArtifactError: an input has more free axes than a batch and a time axis.
    """
    ports = tuple(_with_axes(port) for port in contract.inputs)
    batch = batch or (1 if contract.streaming else 2)
    rng = np.random.default_rng(0)
    frames = _FRAMES * contract.first_chunk
    return [random_inputs(replace(contract, inputs=ports), rng, batch=batch, frames=frames)]


def in_batches(runs: list[Feeds], contract: Contract, batch: int) -> list[Feeds]:
    """The sequences `batch` at a time; where fewer are left, the first of the run come again."""
    return [
        repeated(contract, run, "batch", range(start, start + batch))
        for run in runs
        for start in range(0, size_along(contract, run, "batch") or 1, batch)
    ]


def repeated(contract: Contract, feeds: Feeds, axis: str, places: range) -> Feeds:
    """The frames or sequences at these places, as if the `"time"` or `"batch"` axis began anew."""
    return {port.name: _repeated(port, feeds[port.name], axis, places) for port in contract.inputs}


def _repeated(port: Port, array: Array, axis: str, places: range) -> Array:
    along = getattr(port, f"{axis}_axis")
    if along is None:
        return array
    if axis == "time":
        places = range(port.here(places.start), port.here(places.stop))
    return array.take(places, along, mode="wrap")


def _found(data: Any, where: str = "") -> Iterator[tuple[str, Run]]:
    """The runs one after another, read when their turn comes, and where each stands."""
    if isinstance(data, str) and _is_spec(data):
        yield from _generated(data)
    elif isinstance(data, str | os.PathLike) and Path(data).is_dir():
        for path in _files(Path(data)):
            yield from _found(path, str(path))
    elif _is_several(data):
        for number, run in enumerate(data, 1):
            yield from _found(run, where or f"run {number}")
    else:
        with _telling(where):
            runs = list(read_runs(data, "calibration data"))
        yield from ((where, run) for run in runs)


def _is_spec(text: str) -> bool:
    """Whether it is `module:function`: a colon behind all folders, and no such file."""
    return ":" in os.path.basename(text) and not os.path.exists(text)


def _is_several(data: Any) -> bool:
    is_one = isinstance(data, str | os.PathLike | Mapping) or hasattr(data, "__array__")
    return isinstance(data, Iterable) and not is_one


def _generated(spec: str) -> Iterator[tuple[str, Run]]:
    number = 0
    for number, run in enumerate(_yielded(spec), 1):
        yield from _found(run, f"run {number} of {spec!r}")
    if not number:
        raise InputError(f"{spec!r} yields nothing", hint="Yield at least one sequence.")


def _yielded(spec: str) -> Iterator[Any]:
    function = load_function(spec)
    try:
        made = function()
        yield from made if isinstance(made, Iterator) else [made]
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise InputError(f"{spec!r} raised {told(error)}") from error


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if not files:
        raise InputError(
            f"the folder {os.fspath(folder)!r} holds no .npy or .npz file",
            hint="Write one for each sequence or batch: np.savez(path, input_name=array).",
        )
    return files


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Say in errors where the data stands that they are about."""
    try:
        yield
    except InputError as error:
        if not where or where in str(error):
            raise
        raise InputError(f"{where}: {error}", hint=error.hint) from error


def _fitted(run: Run, contract: Contract, has_labels: bool) -> tuple[Feeds, Feeds]:
    """The inputs, and the arrays by other names."""
    labels: Feeds = {}
    if has_labels and isinstance(run, Mapping):
        names = {port.name for port in contract.inputs}
        labels = {name: np.asarray(array) for name, array in run.items() if name not in names}
        run = {name: array for name, array in run.items() if name in names}
    feeds = fit_inputs(contract, run)
    _refuse_unusable(feeds)
    refuse_short(contract, feeds)
    return feeds, labels


def _steps_of(contract: Contract, feeds: Feeds) -> int:
    """How many of the shortest chunks there are, over all sequences."""
    frames = max(_frames_of(port, feeds[port.name]) for port in contract.inputs)
    return math.ceil(frames / contract.chunk_multiple)


def _frames_of(port: Port, array: Array) -> int:
    """How many frames of any sequence there are; ONNX from elsewhere tells free axes only."""
    free = [isinstance(dim, str) or axis == port.time_axis for axis, dim in enumerate(port.dims)]
    return math.prod(itertools.compress(array.shape, free))


def _refuse_uninformative(runs: list[Feeds], contract: Contract) -> None:
    """Refuse data that is well formed, but on which nothing can be measured."""
    if not runs:
        raise InputError("the calibration data is empty", hint="Give at least one sequence.")
    if all(size_along(contract, run, "time") == 1 for run in runs):
        raise InputError(
            "the calibration data is too short: no sequence of it has a second frame, so no state"
            " is ever read",
            hint="Give sequences as the artifact will see them.",
        )
    if all(_is_constant(port.name, runs) for port in contract.inputs):
        raise InputError(
            "the calibration data holds one value only, so it measures nothing",
            hint="Give sequences as the artifact will see them.",
        )


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
