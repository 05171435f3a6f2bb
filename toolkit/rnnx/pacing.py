"""Real time: a file fed as if its frames came live, and how late the answers were."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnx_runtime.contract import Contract
from rnnx_runtime.model import size_along


@dataclass(frozen=True, slots=True)
class Lateness:
    """From the moment the last frame of a chunk has come until its rows are written.

    Attributes:
        chunks: how many were fed.
        missed: how many were answered only after the frames of the next had come.
        p50_ms, p95_ms, p99_ms, max_ms: the lateness, in milliseconds; 0 without chunks.
    """

    chunks: int
    missed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        return (
            f"{self.chunks} chunks in real time, {self.missed} deadlines missed; late"
            f" p50 {self.p50_ms:.3f} ms, p95 {self.p95_ms:.3f} ms, p99 {self.p99_ms:.3f} ms,"
            f" max {self.max_ms:.3f} ms"
        )


class Pace:
    """Holds chunks back until their last frame would have come.

    Args:
        contract: of the artifact that is fed.
        rate: frames per second.
    """

    def __init__(self, contract: Contract, rate: float) -> None:
        self._contract = contract
        self._rate = rate
        self._late = array("d")  # seconds
        self._missed = 0

    def held_back(self, chunks: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The chunks in time; the next is asked for when the rows of the last are written."""
        start, frames = time.perf_counter(), 0
        for feeds in chunks:
            here = size_along(self._contract, feeds, "time") or 0
            frames += here
            due = start + frames / self._rate
            time.sleep(max(0.0, due - time.perf_counter()))
            yield feeds
            self._note(time.perf_counter() - due, here / self._rate)

    def lateness(self) -> Lateness:
        """Of all chunks so far."""
        late = 1000 * np.array(self._late or [0.0])
        p50, p95, p99 = (float(value) for value in np.percentile(late, [50, 95, 99]))
        return Lateness(len(self._late), self._missed, p50, p95, p99, float(late.max()))

    def _note(self, late: float, deadline: float) -> None:
        self._late.append(late)
        self._missed += late > deadline
