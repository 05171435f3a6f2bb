"""All levels side by side: what each would cost, before one is chosen. Nothing is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from rnnx.parity.metric import Arrays, Metric
from rnnx.quantization.calibration import (
    Calibration,
    Feeds,
    random_calibration,
    read_calibration,
)
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.quality import open_runner
from rnnx.quantization.quantizer import quantize
from rnnx.quantization.report import QuantizationReport
from rnnx.starting import starts
from rnnx_runtime.chunks import in_a_row
from rnnx_runtime.contract import Contract, Port, load_contract
from rnnx_runtime.errors import InputError, QuantizationError

Function = Callable[[Arrays, Arrays], float]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a level would cost.

    Attributes:
        level: its name.
        report: what quantizing measured; None where it was refused.
        reason: why it was refused.
        memory: bytes that opening the file and a first call take beyond the imports.
        agreement: how often the largest value along the last axis is the same one, over all outputs
            in which there is something to choose from; None where there is none.
        figure: what the metric gives; None without one.
    """

    level: str
    report: QuantizationReport | None = None
    reason: str = ""
    memory: float | None = None
    agreement: float | None = None
    figure: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An artifact, and what each level would make of it.

    Attributes:
        memory: bytes that opening the artifact itself and a first call take beyond the imports.
        figure: what the metric gives for the artifact itself; None without one.
        levels: what each level would cost.
    """

    memory: float
    figure: float | None
    levels: tuple[Compared, ...]


def compare_levels(
    src: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    metric: Function | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Quantize an artifact to every level, and measure each.

    Args:
        src: the artifact.
        calibration: as `quantize` takes it.
        metric: as `rnnx.parity.Metric` takes it: gives a figure for the outputs and the inputs by
            name, labels among these, of one run. What is shown is the mean over the runs, each run
            as it is deployed: one frame after another where the artifact streams.
        tell: is told what is being done.

    Raises:
        ArtifactError: `src` is missing, not ONNX, or damaged.
        InputError: the calibration data does not fit, the metric has none, raises or gives no
            number, or `src` is a folder.
    """
    if Path(src).is_dir():
        raise InputError(
            f"{os.fspath(src)!r} is a folder of an encoder-decoder",
            hint="Compare each of its two files by itself.",
        )
    contract = load_contract(src)
    data = _Data(contract, _runs(calibration, contract, metric), calibration is None, metric)
    original = data.outputs(src)
    with tempfile.TemporaryDirectory() as folder:
        paths = {level: Path(folder, f"{level}.onnx") for level in LEVELS}
        tried = []
        for level, path in paths.items():
            tell(f"measuring {level} ...")
            tried.append(_measured(src, path, level, data, original))
        written = [each.level for each in tried if each.report]
        files = [os.fspath(src), *(os.fspath(paths[level]) for level in written)]
        tell(f"starting each of {len(files)} files a few times ...")
        own, *memories = (s.memory for s in starts(files, chunk=contract.first_chunk, batch=1))
    memory = dict(zip(written, memories, strict=True))
    levels = (replace(each, memory=memory.get(each.level)) for each in tried)
    return Comparison(own, data.figure(original), tuple(levels))


@dataclass(frozen=True, slots=True)
class _Data:
    """What all levels are measured on."""

    contract: Contract
    runs: list[Feeds]  # labels among them where there is a metric
    is_random: bool
    metric: Function | None

    def inputs(self) -> list[Feeds]:
        names = [port.name for port in self.contract.inputs]
        return [{name: run[name] for name in names} for run in self.runs]

    def outputs(self, path: str | os.PathLike[str]) -> list[Arrays]:
        """What comes out for each run as deployed."""
        runner, ports = open_runner(path, self.contract), self.contract.outputs
        return [in_a_row(ports, list(runner.outputs(inputs))) for inputs in self.inputs()]

    def figure(self, outputs: list[Arrays]) -> float | None:
        """The mean over the runs."""
        if self.metric is None:
            return None
        metric = Metric(self.metric, drop=0.0)  # nothing is held to the limit that it must have
        return fmean(map(metric.figure, outputs, self.runs))

    def agreement(self, expected: list[Arrays], found: list[Arrays]) -> float | None:
        """How often the largest value along the last axis is the same one."""
        names = [port.name for port in self.contract.outputs if _has_choice(port)]
        pairs = [(a[name], b[name]) for a, b in zip(expected, found, strict=True) for name in names]
        same = [(a.argmax(-1) == b.argmax(-1)).ravel() for a, b in pairs]
        return float(np.concatenate(same).mean()) if same else None


def _runs(
    calibration: Calibration | None, contract: Contract, metric: Function | None
) -> list[Feeds]:
    if calibration is not None:
        return read_calibration(calibration, contract, has_labels=metric is not None)
    if metric is not None:
        raise InputError(
            "the metric has no sequences to be measured on",
            hint="Give calibration data: held-out inputs, and the labels that the metric reads.",
        )
    return random_calibration(contract)


def _has_choice(port: Port) -> bool:
    """Whether the last axis may be one of classes: of a fixed size, more than one, not time."""
    classes = port.dims[-1] if len(port.dims) > 1 else None
    axis = len(port.dims) - 1
    is_choice = isinstance(classes, int) and classes > 1 and port.time_axis != axis
    return is_choice and port.dtype.startswith("float")


def _measured(
    src: str | os.PathLike[str], dst: Path, level: str, data: _Data, original: list[Arrays]
) -> Compared:
    calibration = None if data.is_random else data.inputs()
    try:
        report = quantize(src, dst, level=level, calibration=calibration)
    except QuantizationError as error:
        return Compared(level, reason=str(error))
    outputs = data.outputs(dst)
    agreement, figure = data.agreement(original, outputs), data.figure(outputs)
    return Compared(level, report, agreement=agreement, figure=figure)
