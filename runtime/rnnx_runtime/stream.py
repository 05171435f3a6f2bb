"""Stream: one run through an artifact, fed in chunks, its states carried.

A stream is light: its states and its position. What a run reads and writes are buffers that the
streams of a model share (`seats`), bound once (`binding`).

Frames that are too few for a run are held (`chunks`). So caches have one length from the first run
on, and buffers stay bound.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime import chunks, snapshot
from rnnx_runtime.binding import Bound, Buffers, Result, refuse_misshapen
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import ArtifactError, InputError, StreamError
from rnnx_runtime.model import (
    Model,
    describe_missing_stream,
    fit_inputs,
    named,
    refuse_empty,
    run_session,
    size_along,
    unwrap,
)
from rnnx_runtime.seats import Seats

Array = npt.NDArray[Any]

_LARGEST_TAIL = 1 << 24  # numbers
_NOTHING: Mapping[str, Array] = MappingProxyType({})


class Stream:
    """One run through a streaming artifact: the states and the position, nothing else.

    Args:
        model: an open `Model`, shared, or the path of an artifact.
        batch: sequences that advance together; it stays for the stream's life.
        strict: refuse NaN and infinity in the input; without it the network gets them, and
            onnxruntime's GRU and LSTM make ordinary numbers of them.
        copy: what `feed` returns is the caller's own. Without it, where a chunk is as long as the
            one before it, `feed` returns the stream's buffers, which the next call overwrites.

    Attributes:
        position: frames fed since the start or the last reset.

    Raises:
        ArtifactError: the artifact cannot stream.
        InputError: `batch` is less than 1.
    """

    __slots__ = (
        "__weakref__",
        "_alike",
        "_copy",
        "_flushed",
        "_held",
        "_plain",
        "_readouts",
        "_seats",
        "_states",
        "_strict",
        "_taken",
        "batch",
        "key",
        "model",
        "position",
    )

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        batch: int = 1,
        strict: bool = False,
        copy: bool = True,
    ) -> None:
        self.model = model if isinstance(model, Model) else Model(model)
        self.batch = batch
        self._strict = strict
        self.position = 0
        self._copy = copy
        self._flushed = False
        self._refuse_unusable()
        contract = self.model.contract
        # One input, one output with frames: what `Bound.step` does, as most networks want it.
        single = len(contract.inputs) == len(contract.outputs) == 1 and not contract.readouts
        self._plain = copy and not strict and single
        # Buffers that are handed out must be taken by nobody else.
        self._seats = self.model.seats if copy else Seats(self.model)
        self._taken = self._seats.taken
        self.key = next(self._seats.keys)
        self._alike: Bound | None = None  # what takes a chunk like the one before, right away
        self._states: tuple[Array, ...] | None = None  # while the stream has no seat
        self._held = _NOTHING
        self._readouts = _NOTHING

    @property
    def delay(self) -> int:
        """Frames by which each output lags its input."""
        return self.model.contract.delay

    def feed(self, x: Array | Mapping[str, Array], *, out: Result | None = None) -> Result:
        """Feed any number of frames.

        Args:
            x: `[batch, time, ...]` as the contract's input says; arrays by name where the artifact
                has several inputs.
            out: arrays to write the results into, one or by name as they are returned.

        Returns:
            The output frames that are ready; one array where the artifact has one output, else a
            dict by name. Outputs without a time axis hold their value after the last frame, NaN
            before any. The arrays are the caller's own.

        Raises:
            InputError: the input does not fit. States and position are as they were.
            StreamError: the stream was flushed.
        """
        bound = self._alike
        # Most chunks are shaped like the one before, which was held against the contract.
        if bound is None:
            return self._admit(x, out)
        mine = self._taken.pop(self.key, None)
        if mine is None:  # another stream has the seat
            mine = self._seats.sit(self)
            bound = self._alike = mine.bound_for(bound.frames)
        try:
            if self._plain and out is None:
                y = bound.step(x)
                if y is not None:
                    self.position += bound.frames
                    return y
            if bound.fill(x):
                return self._step(bound, out)
        finally:
            self._taken[self.key] = mine
        return self._admit(x, out)

    def flush(self) -> Result:
        """End the sequence and return its tail.

        Raises:
            StreamError: the stream was flushed before.
        """
        if self._flushed:
            raise StreamError("the stream was flushed before", hint="Call reset() first.")
        frames = chunks.frames_to_the_end(self.model.contract, self.position) - self._fed
        results = self._run_to_the_end(frames) if frames > 0 and self.position else self._idle()
        self._flushed = True
        return results

    def reset(self) -> None:
        """Begin a new sequence: start states, position 0."""
        self.position = 0
        self._flushed = False
        self._held = self._readouts = _NOTHING
        self._stand_at(None)

    def clone(self) -> Stream:
        """A stream of its own that goes on from here, over the same model."""
        twin = Stream(self.model, batch=self.batch, strict=self._strict, copy=self._copy)
        twin._adopt(self._memory(), self.position, self._flushed)
        return twin

    def snapshot(self) -> bytes:
        """The stream's memory as portable bytes, for `restore` here or on another machine."""
        return snapshot.pack(
            snapshot.Snapshot(
                fingerprint=self.model.contract.fingerprint,
                batch=self.batch,
                position=self.position,
                flushed=self._flushed,
                arrays=self._memory(),
            )
        )

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot.

        Raises:
            StreamError: the bytes are damaged, or belong to another artifact or batch. The stream
                is as it was.
        """
        taken = snapshot.unpack(data)
        snapshot.hold(taken, self.model.contract, self.batch)
        self._adopt(taken.arrays, taken.position, taken.flushed)

    def states(self) -> dict[str, Array]:
        """Copies of the states by name (`s000`, ...), each `[batch, ...]`."""
        names = [state.name for state in self.model.contract.states]
        return dict(zip(names, self._seats.standing(self), strict=True))

    def standing(self) -> tuple[Array, ...]:
        """The states, in the contract's order, of a stream that has no seat; not to be changed."""
        if self._states is None:
            return tuple(s.start(batch=self.batch) for s in self.model.contract.states)
        return self._states

    def stand(self, states: tuple[Array, ...]) -> None:
        """Take the states back: the seat is another stream's now."""
        self._states = states

    def __repr__(self) -> str:
        return f"Stream({self.model.path!r}, batch={self.batch}, position={self.position})"

    def _refuse_unusable(self) -> None:
        contract = self.model.contract
        if not contract.streaming:
            raise describe_missing_stream(self.model.path)
        if all(port.time_axis is None for port in contract.inputs):
            raise ArtifactError(f"{self.model.path!r} cannot stream: no input has a time axis")
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise InputError(f"batch is {self.batch!r}; a stream holds at least one sequence")
        free = any(isinstance(state.dims[0], str) for state in contract.states)
        free = free or contract.has_free_batch
        if self.batch != 1 and not free:
            raise InputError(
                f"{self.model.path!r} has no batch axis, so batch cannot be {self.batch}"
            )

    @property
    def _fed(self) -> int:
        """Frames that went through the network."""
        return chunks.fed_after(self.model.contract, self.position)

    def _step(self, bound: Bound, out: Result | None) -> Result:
        """Run over a chunk that stands in the stream's buffers."""
        if self._strict:
            refuse_not_finite(bound.inputs, self.position)
        if out is not None:
            refuse_unfit(out, bound.results(copy=False))
        bound.run()
        self.position += bound.frames
        if bound.readouts:
            self._readouts = {name: bound.outputs[name].copy() for name in bound.readouts}
        if out is not None:
            return write_into(out, bound.results(copy=False))
        return bound.results(copy=self._copy)

    def _admit(self, x: Array | Mapping[str, Array], out: Result | None) -> Result:
        if self._flushed:
            raise StreamError(
                "the stream was flushed: its sequence has ended",
                hint="Call reset() to begin the next sequence.",
            )
        if out is None:
            return self._take(x)
        before = self.clone()
        try:
            return write_into(out, self._take(x))
        except InputError:
            self._adopt(before._memory(), before.position, before._flushed)
            raise

    def _take(self, x: Array | Mapping[str, Array]) -> Result:
        """Hold `x` against the contract, behind what is held; run what is ready of it."""
        contract = self.model.contract
        arrays = fit_inputs(contract, x)
        frames = self._frames(arrays)
        if frames == 0:
            return self._idle()
        if self._strict:
            refuse_not_finite(arrays, self.position)
        if self._held:
            arrays = chunks.in_a_row(contract.inputs, [self._held, arrays])
        ready = chunks.fed_after(contract, self.position + frames) - self._fed
        whole = chunks.cut(contract.inputs, arrays, 0, ready)
        results = self._run(whole, ready) if ready else self._idle()
        self.position += frames
        self._hold(chunks.cut(contract.inputs, arrays, ready, None))
        return results

    def _hold(self, left: Mapping[str, Array]) -> None:
        """Keep what was not run; with nothing kept, a chunk like this one can go straight in."""
        contract = self.model.contract
        all_run = self._fed == self.position and contract.has_only_frames
        self._held = _NOTHING if all_run else {name: x.copy() for name, x in left.items()}
        if not all_run or contract.chunk is not None:
            self._alike = None

    def _run(self, arrays: Mapping[str, Array], frames: int) -> Result:
        """Run over frames that are ready: at first with caches of their own lengths, then bound."""
        if self.model.contract.chunk is not None:
            return self._run_chunks(arrays, frames, length=None)
        if self._fed:
            return self._run_seated(arrays, frames)
        results = self._run_unbound(arrays, frames, length=None)
        self._put_states({s.name: results[s.output_name] for s in self.model.contract.states})
        return self._keep_readouts(results)

    def _run_seated(self, arrays: Mapping[str, Array], frames: int) -> Result:
        with self._seated() as buffers:
            bound = buffers.bound_for(frames)
            bound.fill(dict(arrays))
            bound.run()
            self._alike = bound
            results = self._keep_readouts(bound.outputs)
            return bound.results() if self._copy else results

    @contextmanager
    def _seated(self) -> Iterator[Buffers]:
        """Buffers with the stream's states in them, which nobody else has meanwhile."""
        buffers = self._seats.sit(self)
        try:
            yield buffers
        finally:
            self._taken[self.key] = buffers

    def _put_states(self, states: Mapping[str, Array]) -> None:
        for state in self.model.contract.states:
            refuse_misshapen(state.name, states[state.name], state.shape(batch=self.batch))
        names = [state.name for state in self.model.contract.states]
        self._stand_at(tuple(states[name].copy() for name in names))

    def _stand_at(self, states: tuple[Array, ...] | None) -> None:
        """Have these states, None for those of a start, whatever stands in a seat."""
        self._seats.leave(self)
        self._states = states
        self._alike = None

    def _run_chunks(self, arrays: Mapping[str, Array], frames: int, length: int | None) -> Result:
        """Run chunk after chunk, each of the one length that the artifact takes."""
        contract, fed, parts = self.model.contract, self._fed, []
        chunk = contract.chunk or 1
        with self._seated() as buffers:
            bound, before = buffers.bound_for(chunk), buffers.states()
            try:
                for start in range(0, frames, chunk):
                    bound.fill(chunks.cut(contract.inputs, arrays, start, start + chunk))
                    masks = (chunks.mask(p, fed + start, chunk, length) for p in contract.masks)
                    bound.mask(*masks)
                    bound.run()
                    part = chunks.of_the_sequence(contract, bound.outputs, fed + start, length)
                    parts.append(part)
            except InputError:
                buffers.load(before)
                raise
        return self._keep_readouts(chunks.in_a_row(contract.outputs, parts))

    def _run_unbound(
        self, arrays: Mapping[str, Array], frames: int, length: int | None
    ) -> dict[str, Array]:
        """Every output and state after `frames` more frames; `length` is that of the sequence."""
        contract = self.model.contract
        states = {f"{name}_in": value for name, value in self.states().items()}
        masks = {p.name: chunks.mask(p, self._fed, frames, length) for p in contract.masks}
        names = [port.name for port in contract.outputs]
        names += [state.output_name for state in contract.states]
        return run_session(self.model, names, {**arrays, **states, **masks})

    def _run_to_the_end(self, frames: int) -> Result:
        """Run over what is held and so many zeros that the last frame of the sequence comes out."""
        contract = self.model.contract
        self._refuse_long(frames)
        arrays = chunks.lengthened(contract.inputs, self._kept_inputs(), frames)
        if contract.chunk is not None:
            return self._run_chunks(arrays, frames, self.position)
        results = self._run_unbound(arrays, frames, self.position)
        whole = chunks.of_the_sequence(contract, results, self._fed, self.position)
        return self._keep_readouts(whole)

    def _refuse_long(self, frames: int) -> None:
        """A contract that asks for an endless tail is no network's."""
        ports = self.model.contract.inputs
        shapes = (port.shape(batch=self.batch, frames=port.here(frames)) for port in ports)
        if sum(map(math.prod, shapes)) > _LARGEST_TAIL:
            raise ArtifactError(
                f"to end the sequence, {self.model.path!r} asks for {frames} frames more",
                hint="Its contract was edited by hand; export it again.",
            )

    def _kept_inputs(self) -> Mapping[str, Array]:
        """The frames that are held, and the inputs without frames as they were given last."""
        if self._held or not self.position:
            return self._held
        ports = self.model.contract.inputs
        return {p.name: np.zeros(p.shape(batch=self.batch, frames=0), p.dtype) for p in ports}

    def _keep_readouts(self, results: Mapping[str, Array]) -> Result:
        self._readouts = {name: results[name].copy() for name in self.model.contract.readouts}
        return unwrap({port.name: results[port.name] for port in self.model.contract.outputs})

    def _frames(self, arrays: Mapping[str, Array]) -> int:
        contract = self.model.contract
        batch = size_along(contract, arrays, "batch")
        if batch is not None and batch != self.batch:
            raise InputError(
                f"the input holds {batch} sequences, but the stream was opened for {self.batch}",
                hint="Open one stream for each group of sequences: Stream(model, batch=...).",
            )
        frames = size_along(contract, arrays, "time") or 0
        if frames:
            refuse_empty(contract, arrays)
        return frames

    def _idle(self) -> Result:
        """What a call returns in which no frame came out."""
        return unwrap({port.name: self._idle_value(port) for port in self.model.contract.outputs})

    def _idle_value(self, port: Port) -> Array:
        if port.name in self._readouts:
            return self._readouts[port.name].copy()
        value = np.zeros(port.shape(batch=self.batch, frames=0), port.dtype)
        return value if value.dtype.kind != "f" else np.full_like(value, np.nan)

    def _memory(self) -> dict[str, Array]:
        held = {f"held.{name}": value.copy() for name, value in self._kept_inputs().items()}
        return self.states() | held | {name: x.copy() for name, x in self._readouts.items()}

    def _adopt(self, arrays: Mapping[str, Array], position: int, flushed: bool) -> None:
        names = [port.name for port in self.model.contract.inputs]
        self._held = {x: arrays[f"held.{x}"] for x in names if f"held.{x}" in arrays}
        self.position, self._flushed = position, flushed
        self._readouts = {
            name: arrays[name] for name in self.model.contract.readouts if name in arrays
        }
        self._stand_at(None)
        if self._fed:
            self._put_states({s.name: arrays[s.name] for s in self.model.contract.states})

    def _go_along(
        self, frames: int, arrays: Mapping[str, Array], readouts: Mapping[str, Array]
    ) -> None:
        """Note frames that were run elsewhere, together with other streams'."""
        self.position += frames
        if not self.model.contract.has_only_frames:
            left = chunks.cut(self.model.contract.inputs, arrays, frames, None)
            self._held = {name: part.copy() for name, part in left.items()}
        self._readouts = {
            name: readouts[name] for name in self.model.contract.readouts if name in readouts
        }


def feed_whole(
    stream: Stream, feeds: Mapping[str, Array], lengths: Iterable[int]
) -> dict[str, Array]:
    """All that a stream gives over a whole sequence, tail included, by name.

    Args:
        stream: a stream at its beginning.
        feeds: the whole sequence, arrays by input name.
        lengths: of the chunks it is fed in, as many as it takes.
    """
    contract = stream.model.contract
    frames, sizes = size_along(contract, feeds, "time") or 0, iter(lengths)
    parts, start = [], 0
    while start < frames:
        stop = start + next(sizes)
        chunk = unwrap(chunks.cut(contract.inputs, feeds, start, stop))  # as users give it
        parts.append(named(contract, stream.feed(chunk)))
        start = stop
    parts.append(named(contract, stream.flush()))
    return chunks.in_a_row(contract.outputs, parts)


def refuse_not_finite(arrays: Mapping[str, Array], position: int) -> None:
    """Refuse NaN and infinity in the frames behind the first `position`.

    Raises:
        InputError: there is one; names it and its place.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise InputError(
                f"input {name!r} holds {array[where]} at index {list(where)}"
                f" (after {position} frames)",
                hint="Clean the input, or let the network have such values: strict=False.",
            )


def write_into(out: Result, results: Result) -> Result:
    """Copy results into arrays of the caller's.

    Raises:
        InputError: `out` does not fit.
    """
    refuse_unfit(out, results)
    for target, value in _pairs(out, results):
        target[...] = value
    return out


def refuse_unfit(out: Result, results: Result) -> None:
    """Refuse arrays that these results cannot be written into.

    Raises:
        InputError: their names, shapes or dtypes are others, or they are read-only.
    """
    if isinstance(out, dict) != isinstance(results, dict) or (
        isinstance(out, dict) and isinstance(results, dict) and out.keys() != results.keys()
    ):
        raise InputError("out must be like what is returned: one array, or a dict of them by name")
    for target, value in _pairs(out, results):
        fits = isinstance(target, np.ndarray) and target.flags.writeable
        if not fits or (target.shape, target.dtype) != (value.shape, value.dtype):
            found = f"{target.dtype}{list(target.shape)}" if fits else "no array to write into"
            raise InputError(
                f"out is {found}, but {value.dtype}{list(value.shape)} comes out",
                hint="Give an array of that shape, or leave out away.",
            )


def _pairs(out: Result, results: Result) -> list[tuple[Array, Array]]:
    if isinstance(out, dict) and isinstance(results, dict):
        return [(out[name], value) for name, value in results.items()]
    return [(out, results)]  # type: ignore[list-item]
