"""Faults to plant in the runner: what a loop by hand over a streaming graph gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import numpy as np

from rnnx import Stream
from rnnx_runtime import snapshot
from rnnx_runtime.model import named, unwrap

feed, flush, reset, restore = Stream.feed, Stream.flush, Stream.reset, Stream.restore
OF_STREAMS: WeakKeyDictionary[Stream, Any] = WeakKeyDictionary()


def never_fed_back(stream: Stream, x: Any) -> Any:
    before = stream.snapshot()
    y = feed(stream, x)
    restore(stream, before)
    return y


def reset_at_each_feed(stream: Stream, x: Any) -> Any:
    reset(stream)
    return feed(stream, x)


def one_call_behind(stream: Stream, x: Any) -> Any:
    """The states are read from the side of the double buffer that was written before the last."""
    older = OF_STREAMS.pop(stream, None)
    OF_STREAMS[stream] = stream.snapshot()
    if older is not None:
        restore(stream, older)
    return feed(stream, x)


def one_buffer_for_all_results(stream: Stream, x: Any) -> Any:
    y = feed(stream, x)
    buffer = OF_STREAMS.setdefault(stream, {}).setdefault(y.shape, y)
    np.copyto(buffer, y)
    return buffer


def last_frame_lost(stream: Stream, x: Any) -> Any:
    return feed(stream, x[:, :-1] if x.shape[1] > 1 else x)


def first_state_kept(stream: Stream) -> None:
    """A reset that leaves the states as they are."""
    taken = snapshot.unpack(stream.snapshot())
    reset(stream)
    if taken.position:
        restore(stream, snapshot.pack(replace(taken, flushed=False)))


def no_tail(stream: Stream) -> Any:
    """The end brings no frame, however late the outputs are."""
    ports = stream.model.contract.outputs
    tail = named(stream.model.contract, flush(stream))
    none = {p.name: tail[p.name].take([], p.time_axis) for p in ports if p.time_axis is not None}
    return unwrap(tail | none)


RunnerFault = tuple[str, Callable[..., Any]]


@contextmanager
def planted(fault: RunnerFault) -> Iterator[None]:
    """Every stream has the fault: a method of it is another."""
    method, faulty = fault
    with mock.patch.object(Stream, method, faulty):
        yield
