"""Seats: buffers that the streams of a model take in turn.

A stream that is fed takes a seat and stays until another needs it; then its states are given back
to it. So a stream that is fed again and again copies no state, and a thousand of them cost little
more than their states.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import TYPE_CHECKING

from rnnx_runtime.binding import Array, Buffers

if TYPE_CHECKING:
    from rnnx_runtime.model import Model
    from rnnx_runtime.stream import Stream

_SEATS = 32


class Seats:
    """The seats of one model.

    A thread that takes buffers out of `taken`, which is one step that no other thread can divide,
    has them for itself until it puts them back.

    Attributes:
        taken: the buffers of streams that do nothing at the moment, by the streams' keys; who sat
            down or was fed last stands last.
        keys: one for each stream.
    """

    def __init__(self, model: Model) -> None:
        self.taken: dict[int, Buffers] = {}
        self.keys = itertools.count()
        self._model = model
        self._owners: dict[int, weakref.ref[Stream]] = {}
        self._left: list[Buffers] = []  # by streams that began anew
        self._lock = threading.Lock()

    def sit(self, stream: Stream) -> Buffers:
        """Buffers that hold the stream's states, to be put back into `taken` after use."""
        buffers = self.taken.pop(stream.key, None)
        if buffers is not None:
            return buffers
        with self._lock:
            buffers = self._free(stream.batch) or Buffers(self._model, stream.batch)
            buffers.load(stream.standing())
            self._owners[stream.key] = weakref.ref(stream)
            return buffers

    def leave(self, stream: Stream) -> None:
        """Forget what the stream's buffers hold."""
        with self._lock:
            buffers = self.taken.pop(stream.key, None)
            self._owners.pop(stream.key, None)
            if buffers is not None and len(self._left) + len(self.taken) < _SEATS:
                self._left.append(buffers)

    def standing(self, stream: Stream) -> tuple[Array, ...]:
        """Copies of the stream's states, wherever they are."""
        buffers = self.taken.pop(stream.key, None)
        if buffers is None:
            with self._lock:  # another thread may be about to give them back
                return tuple(state.copy() for state in stream.standing())
        states = buffers.states()
        self.taken[stream.key] = buffers
        return states

    def _free(self, batch: int) -> Buffers | None:
        """Buffers that a stream left; if all seats are taken, those of the one fed longest ago."""
        for place, buffers in enumerate(self._left):
            if buffers.batch == batch:
                return self._left.pop(place)
        return self._vacated(batch)

    def _vacated(self, batch: int) -> Buffers | None:
        keys = list(self.taken)
        buffers = self.taken.pop(keys[0], None) if len(keys) >= _SEATS else None
        if buffers is None:
            return None
        stream = self._owners.pop(keys[0], _nobody)()
        if stream is not None:
            stream.stand(buffers.states())
        return buffers if buffers.batch == batch else None


def _nobody() -> None:
    """The owner of a seat whose stream is gone."""
