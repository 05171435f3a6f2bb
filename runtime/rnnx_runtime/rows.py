"""Rows: streams that are under way together, one row of every buffer each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.binding import Bound, Buffers
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.model import Model, named

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def fits(contract: Contract) -> bool:
    """Whether streams of the artifact can share a run: every array of it has a row for each."""
    ports = all(isinstance(port.batch_size, str) for port in (*contract.inputs, *contract.outputs))
    return ports and all(isinstance(state.dims[0], str) for state in contract.states)


class Rows:
    """The states of some streams, in one buffer for each state.

    Args:
        model: the artifact.
        states: for each stream its states by name, each `[1, ...]`.
    """

    def __init__(self, model: Model, states: Sequence[Arrays]) -> None:
        self._model = model
        self._count = len(states)
        self._buffers = Buffers(model, self._count)
        for row, own in enumerate(states):
            for name, value in own.items():
                self._buffers.sides[0][name][row] = value[0]

    def states(self, row: int) -> dict[str, Array]:
        """Copies of one stream's states, each `[1, ...]`."""
        here = self._buffers.sides[self._buffers.side]
        return {name: value[row : row + 1].copy() for name, value in here.items()}

    def run(self, feeds: Mapping[int, Arrays], frames: int) -> dict[str, Array]:
        """One run in which some of the rows take part; the others stay as they are.

        Args:
            feeds: for each row that takes part its inputs by name, of `frames` frames.
            frames: how many frames each gives.

        Returns:
            The outputs by name, a row for each stream; those of streams that took no part mean
            nothing. The arrays are the caller's own.

        Raises:
            InputError: onnxruntime failed; all rows are as they were.
        """
        bound = self._buffers.bound_for(frames)
        for port in self._model.contract.inputs:
            buffer = bound.inputs[port.name]
            if len(feeds) == self._count:
                parts = [feeds[row][port.name] for row in range(self._count)]
                np.concatenate(parts, port.batch_axis or 0, out=buffer)
                continue
            buffer[...] = 0
            for row, arrays in feeds.items():
                buffer[row_of(port, row)] = arrays[port.name]
        return self._finish(bound, set(range(self._count)).difference(feeds))

    def run_all(self, feeds: Arrays, frames: int) -> dict[str, Array]:
        """One run in which all rows take part, their inputs stacked along the batch axis."""
        bound = self._buffers.bound_for(frames)
        for name, buffer in bound.inputs.items():
            buffer[...] = feeds[name]
        return self._finish(bound, ())

    def _finish(self, bound: Bound, idle: Iterable[int]) -> dict[str, Array]:
        before, after = (
            self._buffers.sides[self._buffers.side],
            self._buffers.sides[self._buffers.side ^ 1],
        )
        bound.run()
        rows = list(idle)
        for name in before if rows else ():
            after[name][rows] = before[name][rows]
        return named(self._model.contract, bound.results())


def row_of(port: Port, row: int) -> tuple[slice, ...]:
    """Where one stream's values stand in an array of all."""
    return (slice(None),) * (port.batch_axis or 0) + (slice(row, row + 1),)
