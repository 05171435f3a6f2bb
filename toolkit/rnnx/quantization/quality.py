"""Runs two artifacts as they are deployed, and measures how far one is from the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rnnx.bench import measure
from rnnx.quantization.calibration import Feeds
from rnnx_runtime.chunks import cut
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.model import Model, named, size_along
from rnnx_runtime.session import open_session
from rnnx_runtime.stream import Stream

Outputs = dict[str, npt.NDArray[Any]]

# Errors below float32's own resolution do not count, so that no ratio is infinite.
_RESOLUTION = float(np.finfo(np.float32).eps) ** 2
_SECONDS = 0.25


class Runner(Protocol):
    """An open artifact, run in the way it is deployed."""

    def outputs(self, feeds: Feeds) -> Iterator[Outputs]:
        """The outputs, and the states where there are any, call after call."""

    def step(self, feeds: Feeds) -> Callable[[], object]:
        """One call, to be timed."""


def open_runner(path: str | os.PathLike[str], contract: Contract) -> Runner:
    """Open the artifact at `path`: streaming artifacts frame after frame, others whole.

    Raises:
        ArtifactError: onnxruntime cannot load it.
    """
    return _Streamed(path) if contract.streaming else _Whole(path)


def measure_quality(
    original: Runner, quantized: Runner, runs: list[Feeds]
) -> tuple[dict[str, float], list[str]]:
    """The signal-to-noise ratio of each float output and state, in dB, and notes on the others.

    Raises:
        QuantizationError: a value is NaN or infinite that the original gives a number for.
        InputError: onnxruntime cannot run these inputs.
    """
    tallies: dict[str, _Tally] = {}
    for feeds in runs:
        pairs = zip(original.outputs(feeds), quantized.outputs(feeds), strict=True)
        for name, expected, found in _values(pairs):
            tallies.setdefault(name, _Tally(name)).add(expected, found)
    notes = [note for tally in tallies.values() if (note := tally.note())]
    return {name: tally.snr_db() for name, tally in tallies.items() if not tally.note()}, notes


def measure_step_time(original: Runner, quantized: Runner, runs: list[Feeds]) -> float:
    """The time of a step over the original's, measured in turn."""
    steps = {"original": original.step(runs[0]), "quantized": quantized.step(runs[0])}
    return measure(steps, seconds=_SECONDS)["quantized"].ratio


class _Streamed:
    """One short chunk after another, from a new sequence on, and the tail."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._model = Model(path)

    def outputs(self, feeds: Feeds) -> Iterator[Outputs]:
        contract = self._model.contract
        stream = self._stream(feeds)
        for start in range(0, size_along(contract, feeds, "time") or 0, contract.chunk_multiple):
            result = stream.feed(_chunk(contract, feeds, start))
            yield named(contract, result) | stream.states()
        yield named(contract, stream.flush())

    def step(self, feeds: Feeds) -> Callable[[], object]:
        stream = self._stream(feeds)
        chunk = _chunk(self._model.contract, feeds, 0)
        return lambda: stream.feed(chunk)

    def _stream(self, feeds: Feeds) -> Stream:
        return self._model.stream(batch=size_along(self._model.contract, feeds, "batch") or 1)


class _Whole:
    """All frames in one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._session = open_session(path)
        self._names = [output.name for output in self._session.get_outputs()]

    def outputs(self, feeds: Feeds) -> Iterator[Outputs]:
        try:
            results = self._session.run(self._names, feeds)
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise InputError(
                f"onnxruntime failed on the inputs to measure with: {error}",
                hint="Give calibration data that the artifact can run.",
            ) from error
        yield dict(zip(self._names, results, strict=True))

    def step(self, feeds: Feeds) -> Callable[[], object]:
        return lambda: self._session.run(self._names, feeds)


class _Tally:
    """Powers of one output and of its error, summed over all calls."""

    def __init__(self, name: str) -> None:
        self.name = name
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


def _chunk(contract: Contract, feeds: Feeds, start: int) -> Feeds:
    """The shortest chunk that can be run: one frame, or as many as the strides make one of."""
    return cut(contract.inputs, feeds, start, start + contract.chunk_multiple)
