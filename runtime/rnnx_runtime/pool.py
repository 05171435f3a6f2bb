"""StreamPool: many live streams of one model, run together.

A stream under way has a row in shared buffers (`rows`), which are gathered anew only when streams
join or leave. Its first run and its end, whose shapes are its own, it makes alone. Whoever asks for
results runs what is ready, for all: while one thread runs, the others' frames gather for the next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.errors import BusyError, InputError
from rnnx_runtime.model import Model, fit_inputs, refuse_empty, size_along, unwrap
from rnnx_runtime.pooled_stream import PooledStream
from rnnx_runtime.rows import Rows, fits, row_of
from rnnx_runtime.stream import Stream

if TYPE_CHECKING:
    from rnnx_runtime.async_pool import AsyncStream

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Result = Array | Arrays

# Shapes of chunks that were held against the contract; a source that varies them has few.
_KEPT_SHAPES = 64


class StreamPool:
    """Many live streams over one model; threads may share it.

    Args:
        model: an open `Model`, or the path of an artifact.
        max_streams: how many streams are live at once. When one more comes, the stream that has
            been idle for longest is put aside as a snapshot, and taken back when it is fed.
        max_pending: how many frames of one stream may wait.
        strict: refuse NaN and infinity in the input.

    Raises:
        ArtifactError: the artifact cannot stream.
        InputError: a number is less than 1.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        max_streams: int,
        max_pending: int = 1 << 16,
        strict: bool = False,
    ) -> None:
        self.model = model if isinstance(model, Model) else Model(model)
        Stream(self.model)  # refuses what cannot stream
        self.max_streams = _positive("max_streams", max_streams)
        self.max_pending = _positive("max_pending", max_pending)
        self.strict = strict
        self._together = fits(self.model.contract)
        self._only_frames = self.model.contract.has_only_frames
        self._reads_out = bool(self.model.contract.readouts)
        self._fitting: dict[tuple[tuple[int, ...], np.dtype[Any]], int] = {}  # chunks met before
        self._awake: dict[PooledStream, None] = {}  # those idle for longest first
        self._members: list[PooledStream] = []  # a row each
        self._rows = Rows(self.model, [])
        self._lock = threading.RLock()  # of what is queued
        self._running = threading.RLock()  # of states
        self._ran = threading.Condition(self._lock)

    def open(self) -> PooledStream:
        """A new stream.

        Raises:
            BusyError: all live streams have frames waiting.
        """
        stream = PooledStream(self)
        self._wake(stream)
        return stream

    def stream(self) -> AsyncStream:
        """A new stream for asyncio: `async with pool.stream() as s: y = await s.feed(x)`."""
        from rnnx_runtime.async_pool import AsyncStream

        return AsyncStream(self)

    def feed(self, streams: Sequence[PooledStream], x: Array | Mapping[str, Array]) -> Result:
        """Feed the next frames of several streams at once: the cheapest way.

        Args:
            streams: each once, none with frames waiting or results not pulled.
            x: `[len(streams), time, ...]` as the contract's input says; arrays by name where the
                artifact has several inputs.

        Returns:
            The output frames, a row for each stream; where streams give different numbers of frames
            (one begins, another is under way), use push and pull.

        Raises:
            InputError: the input does not fit, or rows have different numbers of output frames.
            StreamError: a stream was closed or flushed.
        """
        arrays = fit_inputs(self.model.contract, x)
        if size_along(self.model.contract, arrays, "batch") != len(streams):
            raise InputError(f"the input must hold a sequence for each of {len(streams)} streams")
        with self._running:
            if not self._is_a_step(streams, arrays):
                return self._feed_each(streams, arrays)
            frames = size_along(self.model.contract, arrays, "time") or 0
            self._gather(list(streams))
            outputs = self._rows.run_all(arrays, frames)
            with self._lock:
                for row, stream in enumerate(streams):
                    readouts = self._row(outputs, row) if self._reads_out else {}
                    stream._went_on(frames, {}, readouts)
            return unwrap(outputs)

    def _is_a_step(self, streams: Sequence[PooledStream], arrays: Arrays) -> bool:
        """Whether just these streams are under way, and go on by frames that can be run at once."""
        contract = self.model.contract
        frames = size_along(contract, arrays, "time") or 0
        whole = self._together and frames > 0 and frames % contract.chunk_multiple == 0
        if self.strict or not whole or not self._only_frames:
            return False
        if any(not s._fed or s.pending or s._results or s._ended for s in streams):
            return False
        return set(streams) == set(self._awake) and len(streams) == len(self._awake)

    def run(self) -> int:
        """Run what is ready, once for all streams under way.

        Returns:
            How many streams took part.
        """
        with self._running:
            alone = [s for s in self._awake if not (self._together and s._fed)]
            served = sum(stream._run_alone() for stream in alone)
            served += self._run_together() if self._together else 0
            with self._lock:
                self._ran.notify_all()
            return served

    def _fitted(self, x: Array | Mapping[str, Array]) -> tuple[Mapping[str, Array], int]:
        """One stream's arrays by name, held against the contract, and how many frames they hold."""
        contract = self.model.contract
        if isinstance(x, np.ndarray) and (frames := self._fitting.get((x.shape, x.dtype))):
            return {contract.inputs[0].name: x}, frames
        arrays = fit_inputs(contract, x)
        if size_along(contract, arrays, "batch") not in (None, 1):
            raise InputError("a stream of a pool holds one sequence: give [1, time, ...]")
        frames = size_along(contract, arrays, "time") or 0
        if frames:
            refuse_empty(contract, arrays)
        if isinstance(x, np.ndarray) and len(self._fitting) < _KEPT_SHAPES:
            self._fitting[x.shape, x.dtype] = frames
        return arrays, frames

    def _feed_each(self, streams: Sequence[PooledStream], arrays: Arrays) -> Result:
        ports = self.model.contract.inputs
        for row, stream in enumerate(streams):
            stream.push({port.name: arrays[port.name][row_of(port, row)] for port in ports})
        for stream in streams:
            stream._settle()
        results = [stream._take() for stream in streams]
        try:
            return unwrap(
                {
                    port.name: np.concatenate([r[port.name] for r in results], port.batch_axis or 0)
                    for port in self.model.contract.outputs
                }
            )
        except ValueError as error:
            raise InputError(
                "the streams give different numbers of frames",
                hint="Use push and pull: some begin, while others are under way.",
            ) from error

    def _run_together(self) -> int:
        """One run of all streams under way that have frames enough, as many of each."""
        multiple = self.model.contract.chunk_multiple
        under_way = [stream for stream in self._awake if stream._fed]
        if set(under_way) != set(self._members):
            self._gather(under_way)
        with self._lock:
            ready = [row for row, s in enumerate(self._members) if s.pending >= multiple]
            if not ready:
                return 0
            frames = min(self._members[row].pending for row in ready) // multiple * multiple
            feeds = {row: self._members[row]._next(frames) for row in ready}
        try:
            outputs = self._rows.run(feeds, frames)
        except InputError:
            self._run_apart(feeds, frames)
            return len(ready)
        with self._lock:
            for row, arrays in feeds.items():
                self._members[row]._deliver(self._row(outputs, row), frames, arrays)
        return len(ready)

    def _run_apart(self, feeds: Mapping[int, Arrays], frames: int) -> None:
        """Run rows one by one, so that only the stream whose input is at fault fails."""
        for row, arrays in feeds.items():
            member = self._members[row]
            try:
                outputs = self._rows.run({row: arrays}, frames)
            except InputError as error:
                member._error = error
            else:
                with self._lock:
                    member._deliver(self._row(outputs, row), frames, arrays)

    def _row(self, outputs: Arrays, row: int) -> Arrays:
        return {
            port.name: outputs[port.name][row_of(port, row)] for port in self.model.contract.outputs
        }

    def _gather(self, members: list[PooledStream]) -> None:
        """Give every member a row, in their order."""
        if members != self._members:
            self._scatter()
            self._rows = Rows(self.model, [stream._own.states() for stream in members])
            self._members = members

    def _scatter(self) -> None:
        """Give every stream its states back."""
        for row, stream in enumerate(self._members):
            stream._stand(self._rows.states(row))
        self._members = []

    def _wake(self, stream: PooledStream) -> None:
        """Make a stream live, if need be in the place of one that is idle."""
        with self._running, self._lock:
            if stream in self._awake:
                return
            if len(self._awake) >= self.max_streams:
                self._put_one_aside()
            stream._wake_up()
            self._awake[stream] = None

    def _put_one_aside(self) -> None:
        idle = next((s for s in self._awake if not s.pending and not s._results), None)
        if idle is None:
            raise BusyError(
                f"all {self.max_streams} live streams have frames or results waiting",
                hint="Pull results, close some, or open the pool with more.",
            )
        self._leave(idle)
        idle._fall_asleep()

    def _leave(self, stream: PooledStream) -> None:
        """Take a stream's row away; it keeps its states."""
        if stream in self._members:
            self._scatter()
        self._awake.pop(stream, None)

    def _touch(self, stream: PooledStream) -> None:
        """The stream is no longer the one that has been idle for longest."""
        self._awake.pop(stream, None)
        self._awake[stream] = None

    def __repr__(self) -> str:
        return f"StreamPool({self.model.path!r}, {len(self._awake)} of {self.max_streams} live)"


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be at least 1")
    return value
