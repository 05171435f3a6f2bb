"""One stream of a pool: what waits to be run, what was given and not pulled yet, and its memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from rnnx_runtime import chunks
from rnnx_runtime.errors import BusyError, InputError, StreamError
from rnnx_runtime.model import named, unwrap
from rnnx_runtime.stream import Stream, refuse_not_finite

if TYPE_CHECKING:
    from rnnx_runtime.pool import StreamPool

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Result = Array | Arrays


class PooledStream:
    """One stream of a pool.

    Attributes:
        pending: frames that wait to be run.
    """

    def __init__(self, pool: StreamPool) -> None:
        self.pending = 0
        self._pool = pool
        self._own = Stream(pool.model)  # but its states are in a row while it has one
        self._asleep: bytes | None = None
        self._fed = 0
        self._ended = ""
        self._queue: deque[tuple[Arrays, int]] = deque()  # what waits, and how many frames it is
        self._last: tuple[Arrays, Arrays] = ({}, {})  # what the last run in a row took and gave
        self._results: list[Arrays] = []
        self._error: InputError | None = None

    def push(self, x: Array | Mapping[str, Array], *, timeout: float | None = 0.0) -> None:
        """Queue frames; they are run with those of other streams.

        Args:
            x: `[1, time, ...]`, as for `Stream.feed`.
            timeout: seconds to wait for room in the queue; None for as long as it takes.

        Raises:
            InputError: the input does not fit.
            BusyError: the queue is full, or no live stream can make place.
            StreamError: the stream was closed or flushed.
        """
        self._refuse_ended()
        arrays, frames = self._pool._fitted(x)
        if not frames:
            return
        if self._pool.strict:
            refuse_not_finite(arrays, self._fed + self.pending)
        if self.pending + frames > self._pool.max_pending:
            self._await_room(frames, timeout)
        kept = {name: array.copy() for name, array in arrays.items()}
        while not self._queued(kept, frames):
            self._pool._wake(self)

    def _queued(self, arrays: Arrays, frames: int) -> bool:
        """Queue them, unless the stream was put aside; what waits keeps it awake."""
        with self._pool._lock:
            if self not in self._pool._awake:
                return False
            self._queue.append((arrays, frames))
            self.pending += frames
            return True

    def pull(self) -> Result:
        """The output frames of all that was pushed, as `Stream.feed` gives them.

        Raises:
            InputError: the frames made onnxruntime fail; they are dropped.
        """
        self._settle()
        if not self._results:
            self._refuse_ended()
        return unwrap(self._take())

    def feed(self, x: Array | Mapping[str, Array]) -> Result:
        """Push and pull."""
        self.push(x, timeout=None)
        return self.pull()

    def flush(self) -> Result:
        """End the sequence: what was not pulled yet, and the tail.

        Raises:
            StreamError: the stream was closed or flushed.
        """
        self._refuse_ended()
        self._settle()
        with self._pool._running:
            self._pool._wake(self)
            self._pool._leave(self)
            if self.pending:
                self._own.feed(self._next(self.pending))  # too few for a run
            self._results.append(named(self._pool.model.contract, self._own.flush()))
            self._ended = "flushed: its sequence has ended"
        return unwrap(self._take())

    def snapshot(self) -> bytes:
        """The memory as portable bytes, for `Stream.restore`; of frames pushed all that is ready.

        Raises:
            StreamError: the stream was closed.
        """
        self._refuse_ended()
        self._settle()
        with self._pool._running:
            self._pool._wake(self)
            self._pool._scatter()
            twin = self._own.clone()
            if self.pending:
                ports = self._pool.model.contract.inputs
                twin.feed(chunks.in_a_row(ports, [arrays for arrays, _ in self._queue]))
            return twin.snapshot()

    def close(self) -> None:
        """Give the place to others; what was not pulled is lost."""
        with self._pool._running, self._pool._lock:
            self._pool._leave(self)
            self._queue.clear()
            self._results, self.pending, self._ended = [], 0, "closed"

    def __enter__(self) -> PooledStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether enough frames wait for a run."""
        if not self.pending:
            return False
        return chunks.fed_after(self._pool.model.contract, self._fed + self.pending) > self._fed

    def _refuse_ended(self) -> None:
        if self._ended:
            raise StreamError(f"the stream was {self._ended}", hint="Open another: pool.open().")

    def _settle(self) -> None:
        """Run until nothing of this stream is ready."""
        while self.ready and self._error is None:
            self._pool.run()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _take(self) -> Arrays:
        with self._pool._lock:
            results, self._results = self._results, []
        if not results:
            self._pool._wake(self)
            return named(self._pool.model.contract, self._own._idle()) | self._last_readouts()
        ports = self._pool.model.contract.outputs
        return results[0] if len(results) == 1 else chunks.in_a_row(ports, results)

    def _last_readouts(self) -> Arrays:
        """The values without frames that the last run in a row gave."""
        readouts, last = self._pool.model.contract.readouts, self._last[1]
        return {name: last[name].copy() for name in readouts if name in last}

    def _await_room(self, frames: int, timeout: float | None) -> None:
        limit = self._pool.max_pending
        end = None if timeout is None else time.monotonic() + timeout
        while self.pending + frames > limit:
            if self.ready and self._pool.run():
                continue
            left = None if end is None else end - time.monotonic()
            if frames > limit or not self.pending or (left is not None and left <= 0):
                raise BusyError(
                    f"{self.pending} frames wait, and {frames} more would exceed {limit}",
                    hint="Pull results, give fewer frames at a time, or raise max_pending.",
                )
            with self._pool._lock:
                self._pool._ran.wait(left)

    def _next(self, frames: int) -> Arrays:
        """The next frames from the queue."""
        ports = self._pool.model.contract.inputs
        parts, count = [], 0
        while count < frames:
            part, length = self._queue.popleft()
            parts.append(part)
            count += length
        arrays = parts[0] if len(parts) == 1 else chunks.in_a_row(ports, parts)
        if count > frames:
            left = chunks.cut(ports, arrays, frames, None)
            self._queue.appendleft((left, count - frames))
            arrays = chunks.cut(ports, arrays, 0, frames)
        self.pending -= frames
        return arrays

    def _run_alone(self) -> bool:
        """Run what is ready without the others; whether there was something."""
        with self._pool._lock:
            after = chunks.fed_after(self._pool.model.contract, self._fed + self.pending)
            frames = after - self._fed
            if not frames:
                return False
            arrays = self._next(frames)
        try:
            outputs = named(self._pool.model.contract, self._own.feed(arrays))
        except InputError as error:
            self._error = error
            return True
        with self._pool._lock:
            self._fed += frames
            self._results.append(outputs)
            self._pool._touch(self)
        return True

    def _deliver(self, outputs: Arrays, frames: int, arrays: Arrays) -> None:
        """What a run with the others gave for these frames."""
        self._results.append(outputs)
        self._went_on(frames, arrays, outputs)

    def _went_on(self, frames: int, arrays: Arrays, outputs: Arrays) -> None:
        self._fed += frames
        self._last = arrays, outputs
        self._pool._touch(self)

    def _stand(self, states: Arrays) -> None:
        """Take what the row held: the states, and how far the stream has come."""
        self._own._put_states(states)
        if self._fed > self._own.position:
            self._own._go_along(self._fed - self._own.position, *self._last)

    def _fall_asleep(self) -> None:
        """Be bytes for a while."""
        self._asleep = self._own.snapshot()
        del self._own

    def _wake_up(self) -> None:
        if self._asleep is not None:
            self._own = Stream(self._pool.model)
            self._own.restore(self._asleep)
            self._asleep = None
