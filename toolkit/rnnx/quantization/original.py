"""The artifact that becomes smaller, and how it is run where it is deployed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import onnx_ir as ir

from rnnx.parity.metric import Arrays, Metric
from rnnx.quantization.calibration import (
    Calibration,
    Feeds,
    in_batches,
    random_calibration,
    read_calibration,
)
from rnnx.quantization.change import Given, nothing
from rnnx.quantization.invariance import prove_invariance
from rnnx.quantization.observing import hessians
from rnnx.quantization.pair import Pair
from rnnx.quantization.quality import (
    Quality,
    Runner,
    measure_quality,
    measure_step_time,
    open_runner,
)
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.describe import describe
from rnnx_runtime.chunks import in_a_row
from rnnx_runtime.contract import METADATA_KEY, Contract, load_contract
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.model import size_along

Function = Callable[[Arrays, Arrays], float]

# What names of quantized operators hold: DynamicQuantizeLSTM, QLinearConv, MatMulNBits, ...
_QUANTIZED = ("quantize", "qlinear", "integer", "nbits")


@dataclass(frozen=True, slots=True)
class Original:
    """An artifact in float32, and what a smaller one is held against it by.

    Attributes:
        path: of the artifact.
        bytes: of the file.
        contract: the artifact's; of ONNX from elsewhere, its inputs and outputs as they are.
        runner: the artifact, open.
        data: what it is measured on: arrays by input name, with labels where there is a metric.
        runs: the inputs among these, as many sequences at once as where it is deployed.
        chunk: frames fed at a time; None for an artifact that takes whole sequences.
        batch: sequences that advance together; None for as many as each of `data` holds.
        given: what a level is given.
        measured_on: `"calibration data"` or `"random inputs"`.
        metric: the user's own.
        pair: the encoder-decoder that it is a file of, where the metric is of what that writes.
        own_figure: what the metric gives for the artifact; None without one, or where it is NaN.
    """

    path: Path
    bytes: int
    contract: Contract
    runner: Runner
    data: list[Feeds]
    runs: list[Feeds]
    chunk: int | None
    batch: int | None
    given: Given
    measured_on: str
    metric: Metric | None
    pair: Pair | None = None
    own_figure: float | None = None

    def open(self, path: Path) -> Runner:
        """Open an artifact that is to do the same."""
        return open_runner(path, self.contract)

    def quality(self, smaller: Runner) -> Quality:
        """How far it is from this one; see `measure_quality`."""
        return measure_quality(self.runner, smaller, self.contract, self.runs, self.chunk)

    def step_time(self, smaller: Runner) -> float:
        """The time of its step over this one's."""
        return measure_step_time(self.runner, smaller, self.runs, self.chunk)

    def invariance(self, smaller: Runner, promised: str) -> tuple[str, list[str]]:
        """What holds of what is promised of it; see `prove_invariance`."""
        return prove_invariance(
            self.runner, smaller, self.contract, self.runs, promised, self.chunk
        )

    def figure(self, runner: Runner) -> float | None:
        """What the metric gives, the mean over the data; None without one, or where it is NaN.

        Raises:
            InputError: the metric raises, or gives no number.
        """
        if self.metric is None:
            return None
        if self.pair is not None:
            outputs, data = self.pair.outputs(runner.path), self.pair.sources
        else:
            outputs, data = (self._outputs(runner, run) for run in self.data), self.data
        figure = fmean(map(self.metric.figure, outputs, data))
        return figure if math.isfinite(figure) else None

    def _outputs(self, runner: Runner, run: Feeds) -> Arrays:
        """What comes out for a run; sequences that came again to fill a batch are left out."""
        ports, sequences = self.contract.outputs, size_along(self.contract, run, "batch") or 1
        parts = [
            in_a_row(ports, list(runner.outputs(feeds, self.chunk)))
            for feeds in _deployed([run], self.contract, self.batch)
        ]
        axes = {port.name: port.batch_axis for port in ports}
        return {
            name: parts[0][name]
            if axis is None
            else np.concatenate([p[name] for p in parts], axis).take(range(sequences), axis)
            for name, axis in axes.items()
        }

    @property
    def sequences(self) -> int:
        """How many advance together; where runs differ, in the first."""
        return size_along(self.contract, self.runs[0], "batch") or 1


def open_original(
    path: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    data: list[Feeds] | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    metric: Function | None = None,
) -> Original:
    """Open an artifact, or any ONNX file, as `quantize` takes it.

    Args:
        path, calibration, chunk, batch, metric: as `quantize` takes them.
        data: the calibration data, where it has been read.

    Raises:
        ArtifactError: it is missing, not ONNX, or damaged.
        InputError: the data does not fit, or such chunks or batches, or the metric has no data.
        QuantizationError: it is quantized already.
    """
    model = load_graph(path)
    contract = _contract(model, path)
    _refuse_quantized(model, contract, path)
    chunk = _chunk(contract, chunk)
    if batch is not None:
        _refuse_batch(contract, batch)
    is_random = calibration is None and data is None
    data = data or _data(calibration, contract, batch, has_labels=metric is not None)
    runs = _deployed(data, contract, batch)
    original = Original(
        path=Path(path),
        bytes=Path(path).stat().st_size,
        contract=contract,
        runner=open_runner(path, contract),
        data=data,
        runs=runs,
        chunk=chunk,
        batch=batch,
        given=Given(
            observed=nothing if is_random else cache(partial(hessians, path, contract, runs)),
            streaming=contract.streaming,
        ),
        measured_on="random inputs" if is_random else "calibration data",
        metric=as_metric(metric),
    )
    return dataclasses.replace(original, own_figure=original.figure(original.runner))


def as_metric(function: Function | None) -> Metric | None:
    """The user's own metric; nothing is held to the limit that one must have."""
    return None if function is None else Metric(function, drop=0.0)


def is_quantized(node: ir.Node) -> bool:
    """Whether a node computes with quantized numbers."""
    return any(part in node.op_type.lower() for part in _QUANTIZED)


def _contract(model: ir.Model, path: str | os.PathLike[str]) -> Contract:
    """The artifact's contract, or, for ONNX from elsewhere, its inputs and outputs as they are."""
    if METADATA_KEY in model.metadata_props:
        return load_contract(path)
    return describe(model)


def _refuse_quantized(model: ir.Model, contract: Contract, path: str | os.PathLike[str]) -> None:
    quantized = {node.op_type for node in model.graph.all_nodes() if is_quantized(node)}
    if contract.quantization or quantized:
        level = (contract.quantization or {}).get("level") or ", ".join(sorted(quantized))
        raise QuantizationError(
            f"{os.fspath(path)!r} is quantized already ({level})",
            hint="Quantize the float32 artifact it was made from.",
        )


def _chunk(contract: Contract, chunk: int | None) -> int | None:
    """Frames fed at a time; None for an artifact that takes whole sequences."""
    least = contract.chunk_multiple
    if chunk is None:
        return least if contract.streaming else None
    if not contract.streaming:
        raise InputError(
            "the artifact takes whole sequences, no chunks",
            hint="Leave the chunk out, or export it with streaming=True.",
        )
    if chunk < 1 or chunk % least:
        raise InputError(
            f"a call of {chunk} frames is not always a run of the network",
            hint=f"Give a multiple of {least}.",
        )
    return chunk


def _refuse_batch(contract: Contract, batch: int) -> None:
    if batch < 1 or (batch > 1 and not contract.has_free_batch):
        raise InputError(
            f"the artifact cannot run {batch} sequences at once",
            hint="Leave the batch out: it runs one." if batch > 1 else "Give one or more.",
        )


def _data(
    calibration: Calibration | None, contract: Contract, batch: int | None, *, has_labels: bool
) -> list[Feeds]:
    if calibration is not None:
        return read_calibration(calibration, contract, has_labels=has_labels)
    if has_labels:
        raise InputError(
            "the metric has no sequences to be measured on",
            hint="Give calibration data: held-out inputs, and the labels that the metric reads.",
        )
    return random_calibration(contract, batch)


def _deployed(data: list[Feeds], contract: Contract, batch: int | None) -> list[Feeds]:
    """The inputs alone, `batch` sequences at a time."""
    names = [port.name for port in contract.inputs]
    inputs = [{name: run[name] for name in names} for run in data]
    return inputs if batch is None else in_batches(inputs, contract, batch)
