"""The pool for asyncio: frames of all tasks that are waiting are run together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy.typing as npt

if TYPE_CHECKING:
    from rnnx_runtime.pool import StreamPool
    from rnnx_runtime.pooled_stream import PooledStream, Result

_Turns = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[int]]
_TURNS: WeakKeyDictionary[StreamPool, _Turns] = WeakKeyDictionary()


class AsyncStream:
    """One stream of a pool, for the tasks of one event loop.

    async with pool.stream() as s:
        y = await s.feed(x)
    """

    def __init__(self, pool: StreamPool) -> None:
        self._pool = pool
        self._stream: PooledStream | None = None

    async def __aenter__(self) -> AsyncStream:
        self._stream = self._pool.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._opened().close()

    async def feed(self, x: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]) -> Result:
        """Feed frames, as `Stream.feed`; other tasks go on while they are run.

        Raises:
            InputError: the input does not fit, or onnxruntime failed on it.
            BusyError: the queue is full.
            StreamError: the stream was flushed.
        """
        stream = self._opened()
        stream.push(x)
        while stream.ready:
            await self._turn()
        return stream.pull()

    async def flush(self) -> Result:
        """End the sequence and return its tail."""
        return await asyncio.to_thread(self._opened().flush)

    def _opened(self) -> PooledStream:
        from rnnx_runtime.errors import StreamError

        if self._stream is None:
            raise StreamError(
                "the stream is not open", hint="Use it as `async with pool.stream() as s:`."
            )
        return self._stream

    async def _turn(self) -> None:
        """Take part in the next run; one runs at a time for all tasks of the loop."""
        loop = asyncio.get_running_loop()
        turns = _TURNS.setdefault(self._pool, WeakKeyDictionary())
        turn = turns.get(loop)
        if turn is None or turn.done():
            await asyncio.sleep(0)  # let the other tasks push first
            turn = turns.get(loop)
        if turn is None or turn.done():
            turn = turns[loop] = loop.run_in_executor(None, self._pool.run)
        await asyncio.shield(turn)
