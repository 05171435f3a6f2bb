"""Runs two artifacts as they are deployed, and measures how far one is from the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rnnx.bench import measure
from rnnx.quantization.calibration import Feeds, repeated
from rnnx_runtime.chunks import cut
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.model import Model, named, size_along
from rnnx_runtime.session import open_session
from rnnx_runtime.stream import Stream

Outputs = dict[str, npt.NDArray[Any]]

# Errors below float32's own resolution do not count, so that no ratio is infinite.
_RESOLUTION = float(np.finfo(np.float32).eps) ** 2
_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Quality:
    """How far one artifact is from another.

    Attributes:
        snr_db: the signal-to-noise ratio of each float output and state, in dB.
        agreement: how often the largest value along the last axis is the same one, over all outputs
            in which there is something to choose from; None where there is none.
        notes: what is to be said of the others, in sentences.
    """

    snr_db: dict[str, float]
    agreement: float | None
    notes: list[str]


class Runner(Protocol):
    """An open artifact, run in the way it is deployed.

    `chunk` is how many frames are fed at a time where it streams; without it, as few as can be run.

    Attributes:
        path: of its file.
    """

    path: Path

    def outputs(self, feeds: Feeds, chunk: int | None = None) -> Iterator[Outputs]:
        """The outputs, and the states where there are any, call after call."""

    def step(self, feeds: Feeds, chunk: int | None = None) -> Callable[[], object]:
        """One call, to be timed."""


def open_runner(path: str | os.PathLike[str], contract: Contract) -> Runner:
    """Open the artifact at `path`: streaming artifacts chunk after chunk, others whole.

    Raises:
        ArtifactError: onnxruntime cannot load it.
    """
    return _Streamed(path) if contract.streaming else _Whole(path)


def measure_quality(
    original: Runner,
    quantized: Runner,
    contract: Contract,
    runs: list[Feeds],
    chunk: int | None = None,
) -> Quality:
    """How far `quantized` is from `original` on these runs, both fed in such chunks.

    Raises:
        QuantizationError: a value is NaN or infinite that the original gives a number for.
        InputError: onnxruntime cannot run these inputs.
    """
    choices = {port.name for port in contract.outputs if _has_choice(port)}
    tallies: dict[str, _Tally] = {}
    for feeds in runs:
        pairs = zip(original.outputs(feeds, chunk), quantized.outputs(feeds, chunk), strict=True)
        for name, expected, found in _values(pairs):
            tallies.setdefault(name, _Tally(name, name in choices)).add(expected, found)
    chosen = sum(tally.chosen for tally in tallies.values())
    return Quality(
        snr_db={name: tally.snr_db() for name, tally in tallies.items() if not tally.note()},
        agreement=sum(tally.agreed for tally in tallies.values()) / chosen if chosen else None,
        notes=[note for tally in tallies.values() if (note := tally.note())],
    )


def measure_step_time(
    original: Runner, quantized: Runner, runs: list[Feeds], chunk: int | None = None
) -> float:
    """The time of a step over the original's, measured in turn."""
    first = runs[0]
    steps = {"original": original.step(first, chunk), "quantized": quantized.step(first, chunk)}
    return measure(steps, seconds=_SECONDS)["quantized"].ratio


class _Streamed:
    """One chunk after another, from a new sequence on, and the tail."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._model = Model(path)

    def outputs(self, feeds: Feeds, chunk: int | None = None) -> Iterator[Outputs]:
        contract = self._model.contract
        stream, chunk = self._stream(feeds), chunk or contract.chunk_multiple
        for start in range(0, size_along(contract, feeds, "time") or 0, chunk):
            result = stream.feed(cut(contract.inputs, feeds, start, start + chunk))
            yield named(contract, result) | stream.states()
        yield named(contract, stream.flush())

    def step(self, feeds: Feeds, chunk: int | None = None) -> Callable[[], object]:
        contract, stream = self._model.contract, self._stream(feeds)
        first = repeated(contract, feeds, "time", range(chunk or contract.chunk_multiple))
        return lambda: stream.feed(first)

    def _stream(self, feeds: Feeds) -> Stream:
        return self._model.stream(batch=size_along(self._model.contract, feeds, "batch") or 1)


class _Whole:
    """All frames in one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._session = open_session(path)
        self._names = [output.name for output in self._session.get_outputs()]

    def outputs(self, feeds: Feeds, chunk: int | None = None) -> Iterator[Outputs]:
        try:
            results = self._session.run(self._names, feeds)
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise InputError(
                f"onnxruntime failed on the inputs to measure with: {error}",
                hint="Give calibration data that the artifact can run.",
            ) from error
        yield dict(zip(self._names, results, strict=True))

    def step(self, feeds: Feeds, chunk: int | None = None) -> Callable[[], object]:
        return lambda: self._session.run(self._names, feeds)


class _Tally:
    """Powers of one output and of its error, summed over all calls."""

    def __init__(self, name: str, has_choice: bool) -> None:
        self.name = name
        self.agreed = self.chosen = 0
        self._has_choice = has_choice
        self._is_float = True
        self._signal = self._noise = 0.0
        self._equal = self._count = 0

    def add(self, expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> None:
        self._is_float = expected.dtype.kind == "f"
        usable = np.isfinite(expected)
        if not np.isfinite(found[usable]).all():
            raise QuantizationError(
                f"the quantized {self.name!r} is NaN or infinite where the original is not",
                hint="Choose a level that keeps more: int8-store or fp16-store.",
            )
        signal = expected[usable].astype(np.float64)
        self._signal += float(np.sum(signal**2))
        self._noise += float(np.sum((found[usable] - signal) ** 2))
        self._equal += int(np.sum(expected == found))
        self._count += expected.size
        if self._has_choice:
            same = expected.argmax(-1) == found.argmax(-1)
            self.agreed, self.chosen = self.agreed + int(same.sum()), self.chosen + same.size

    def snr_db(self) -> float:
        if not self._signal and self._noise:
            return 10 * float(np.log10(_RESOLUTION))
        noise = max(self._noise / (self._signal or 1.0), _RESOLUTION)
        return -10 * float(np.log10(noise))

    def note(self) -> str | None:
        """What is to be said where a ratio of powers says nothing."""
        if not self._is_float:
            share = 100 * self._equal / max(self._count, 1)
            return f"{self.name!r} holds no floats; {share:.1f} % of its values are as before."
        if not self._signal and not self._noise:
            return f"{self.name!r} is 0 throughout on these inputs, so nothing was measured of it."
        return None


def _values(
    pairs: Iterator[tuple[Outputs, Outputs]],
) -> Iterator[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    for expected, found in pairs:
        for name in expected:
            yield name, expected[name], found[name]


def _has_choice(port: Port) -> bool:
    """Whether the last axis may be one of classes: of a fixed size, more than one, not time."""
    classes = port.dims[-1] if len(port.dims) > 1 else None
    axis = len(port.dims) - 1
    is_choice = isinstance(classes, int) and classes > 1 and port.time_axis != axis
    return is_choice and port.dtype.startswith("float")
