"""Writes what a stream returns, a row for each output frame, as CSV or JSON lines."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from rnnx.layout import frame_shape, from_port
from rnnx_runtime.binding import Result
from rnnx_runtime.contract import Contract, Port

Array = npt.NDArray[Any]
Row = Mapping[str, Array]


class Sink:
    """Writes the results of each feed at once, and flushes them.

    A row is one output frame with the values of all outputs for it: frames of an output that lags
    less wait for the others. A value without a time axis, which holds for all frames so far, stands
    in the last row of its feed. Where no output has a time axis, each feed makes one row.

    Args:
        file: where to write.
        contract: the artifact's.
        as_json: write one JSON object a row, NaN and infinity as null; else CSV under a header.

    Attributes:
        rows: rows written.
    """

    def __init__(self, file: TextIO, contract: Contract, *, as_json: bool) -> None:
        self.rows = 0
        self._file = file
        self._ports = contract.outputs
        self._waiting: dict[str, deque[Array]] = {
            port.name: deque() for port in contract.outputs if port.time_axis is not None
        }
        self._format = _json_line if as_json else self._csv_line
        if not as_json:
            self._emit([",".join(["frame", *(name for p in self._ports for name in _columns(p))])])

    def write(self, results: Result, position: int, *, last: bool = False) -> None:
        """Write the rows that are complete.

        Args:
            results: what `feed` or `flush` returned.
            position: frames fed so far.
            last: nothing follows, so that waiting frames need not wait on.
        """
        named = results if isinstance(results, dict) else {self._ports[0].name: results}
        values = {port.name: from_port(port, named[port.name]) for port in self._ports}
        for name, frames in self._waiting.items():
            frames.extend(values.pop(name))
        if self._waiting:
            lines = list(self._lines(values, last))
        else:
            lines = [self._format(position - 1, values)]
        self.rows += len(lines)
        self._emit(lines)

    def _lines(self, readouts: Row, last: bool) -> Iterator[str]:
        lengths = [len(frames) for frames in self._waiting.values()]
        ready = max(lengths) if last else min(lengths)
        for index in range(ready):
            row = {name: frames.popleft() for name, frames in self._waiting.items() if frames}
            final = readouts if index == ready - 1 else {}
            yield self._format(self.rows + index, {**row, **final})

    def _csv_line(self, frame: int, row: Row) -> str:
        cells = [str(frame)]
        for port in self._ports:
            values = row.get(port.name)
            empty = [""] * math.prod(frame_shape(port))
            cells += empty if values is None else [str(value) for value in values.ravel()]
        return ",".join(cells)

    def _emit(self, lines: list[str]) -> None:
        self._file.writelines(f"{line}\n" for line in lines)
        self._file.flush()


def _columns(port: Port) -> list[str]:
    stem = f"{port.name}_" if port.name[-1:].isdigit() else port.name
    return [f"{stem}{index}" for index in range(math.prod(frame_shape(port)))]


def _json_line(frame: int, row: Row) -> str:
    return json.dumps({"frame": frame} | {name: _plain(value) for name, value in row.items()})


def _plain(value: Array) -> Any:
    """Lists of numbers; JSON has no NaN and no infinity."""
    finite = np.isfinite(value)
    if not finite.all():
        value = value.astype(object)
        value[~finite] = None
    return value.tolist()
