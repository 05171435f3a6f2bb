"""Writes what a stream returns, a row for each output frame, as CSV or JSON lines."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rnnx.layout import columns, from_port
from rnnx_runtime.binding import Result
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.model import named

Array = npt.NDArray[Any]
Row = dict[str, str]


class Lines(Protocol):
    """Where rows go: a text file, or what counts the bytes of one."""

    def write(self, text: str, /) -> Any:
        """Take some lines."""

    def flush(self) -> None:
        """Let them be seen."""


class Sink:
    """Writes the results of each feed at once, and flushes them.

    A row is one output frame with the values of all outputs for it: frames of an output that lags
    less wait for the others. Where outputs have several strides, `frame` counts in their common
    divisor, and an output without a frame at that time leaves its columns empty. A value without a
    time axis, which holds for all frames so far, stands in the last row of its feed. Where no
    output has a time axis, each feed makes one row, for the last frame fed.

    `seconds` is the time in the input that a frame stands for: the frame's number times its stride
    times the length of an input frame. How many input frames after that it depends on is its
    port's `lookahead`.

    Args:
        file: where to write.
        contract: the artifact's.
        as_json: write one JSON object a row, NaN and infinity as null; else CSV under a header,
            which comes with the first results or at `begin`.
        rate: input frames per second; None leaves `seconds` out.
        memory: of a sink whose rows stand in `file`, to go on behind them.

    Attributes:
        rows: rows written.
    """

    def __init__(
        self,
        file: Lines,
        contract: Contract,
        *,
        as_json: bool,
        rate: float | None = None,
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        self.rows = 0
        self._file = file
        self._contract = contract
        self._ports = contract.outputs
        self._as_json = as_json
        self._rate = rate
        timed = [port for port in contract.outputs if port.time_axis is not None]
        self._tick = _common_divisor([port.stride for port in timed])
        self._steps = {port.name: int(port.stride / self._tick) for port in timed}
        self._due = dict.fromkeys(self._steps, 0)  # ticks
        self._waiting: dict[str, deque[str]] = {name: deque() for name in self._steps}
        self._begun = as_json or memory is not None
        if memory is not None:
            self._recall(memory)

    def begin(self) -> None:
        """Write the header, where there is one; `write` does, unless that was done."""
        if not self._begun:
            self._begun = True
            self._emit([self._header()])

    def write(self, results: Result, position: int, *, last: bool = False) -> None:
        """Write the rows that are complete.

        Args:
            results: what `feed` or `flush` returned.
            position: frames fed so far.
            last: nothing follows, so that waiting frames need not wait on.
        """
        self.begin()
        by_name = named(self._contract, results)
        values = {port.name: from_port(port, by_name[port.name]) for port in self._ports}
        for name, frames in self._waiting.items():
            frames.extend(map(self._text, values.pop(name)))
        rows = list(self._ready(last)) if self._waiting else self._readout_row(position, last)
        if rows:
            rows[-1][1].update((name, self._text(value)) for name, value in values.items())
        self.rows += len(rows)
        self._emit([self._line(tick, row) for tick, row in rows])

    def memory(self) -> dict[str, Any]:
        """What a sink must know to go on behind these rows, for JSON."""
        waiting = {name: list(frames) for name, frames in self._waiting.items()}
        return {"rows": self.rows, "due": dict(self._due), "waiting": waiting}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self.rows = memory["rows"]
        for name in self._waiting:
            self._due[name] = memory["due"][name]
            self._waiting[name].extend(memory["waiting"][name])

    def _ready(self, last: bool) -> Iterator[tuple[int, dict[str, str]]]:
        """The rows for which every output has what it will have, and their ticks."""
        while going := [name for name, held in self._waiting.items() if held or not last]:
            tick = min(self._due[name] for name in going)
            due = [name for name in going if self._due[name] == tick]
            if not all(self._waiting[name] for name in due):
                return
            for name in due:
                self._due[name] += self._steps[name]
            yield tick, {name: self._waiting[name].popleft() for name in due}

    def _readout_row(self, position: int, last: bool) -> list[tuple[int, dict[str, str]]]:
        """The row of a feed where no output has a time axis; a flush that runs nothing has none."""
        nothing_new = last and not (position and self._contract.lags)
        return [] if nothing_new else [(position - 1, {})]

    def _header(self) -> str:
        names = [name for port in self._ports for name in columns(port)]
        return ",".join([*self._stamp(0), *names])

    def _stamp(self, tick: int) -> dict[str, str]:
        stamp = {"frame": str(tick)}
        if self._rate is not None:
            stamp["seconds"] = str(round(float(tick * self._tick) / self._rate, 9))
        return stamp

    def _line(self, tick: int, row: Row) -> str:
        cells = self._stamp(tick)
        if self._as_json:
            return "{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in (cells | row).items()) + "}"
        return ",".join([*cells.values(), *(row.get(p.name, _empty(p)) for p in self._ports)])

    def _text(self, value: Array) -> str:
        return json.dumps(_plain(value)) if self._as_json else ",".join(map(str, value.ravel()))

    def _emit(self, lines: list[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()


def _common_divisor(strides: list[Fraction]) -> Fraction:
    """The longest time of which all strides are multiples; 1 without any."""
    below = math.lcm(*(stride.denominator for stride in strides))
    return Fraction(math.gcd(*(int(stride * below) for stride in strides)) or 1, below)


def _empty(port: Port) -> str:
    return "," * (len(columns(port)) - 1)


def _plain(value: Array) -> Any:
    """Lists of numbers; JSON has no NaN and no infinity."""
    finite = np.isfinite(value)
    if not finite.all():
        value = value.astype(object)
        value[~finite] = None
    return value.tolist()
