"""Stream: one run through an artifact, fed in chunks, its states carried.

States are never aliased: each state has two buffers, and two bindings are used in turn, one reading
the first and writing the second, the other the reverse. A run that fails has written only buffers
that hold nothing, so the stream is where it was.

Frames that are too few for a run are held (`chunks`). So caches have one length from the first run
on, and buffers stay bound.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime import chunks, snapshot
from rnnx_runtime.binding import Bound, Result, allocate
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

Array = npt.NDArray[Any]

# Bound buffers kept for chunk lengths met before; a source that varies its chunks meets few.
_KEPT_LENGTHS = 8
_LARGEST_TAIL = 1 << 26  # numbers


class Stream:
    """One run through a streaming artifact: the states and the position, nothing else.

    Args:
        model: an open `Model`, shared, or the path of an artifact.
        batch: sequences that advance together; it stays for the stream's life.
        strict: refuse NaN and infinity in the input; without it the network gets them, and
            onnxruntime's GRU and LSTM make ordinary numbers of them.

    Attributes:
        position: frames fed since the start or the last reset.

    Raises:
        ArtifactError: the artifact cannot stream.
        InputError: `batch` is less than 1.
    """

    def __init__(
        self, model: Model | str | os.PathLike[str], *, batch: int = 1, strict: bool = False
    ) -> None:
        self.model = model if isinstance(model, Model) else Model(model)
        self.batch = batch
        self.strict = strict
        self.position = 0
        self._flushed = False
        self._refuse_unusable()
        contract = self.model.contract
        self._sides = tuple(
            {s.name: allocate(s.shape(batch=batch), s.dtype) for s in contract.states}
            for _ in range(2)
        )
        self._first_input = contract.inputs[0].name
        self._readout_names = [p.name for p in contract.outputs if p.time_axis is None]
        self._bound: dict[int, Bound] = {}
        self._only_frames = all(port.time_axis is not None for port in contract.inputs)
        self._last: Bound | None = None  # set while nothing is held that its buffers could spoil
        self._held: dict[str, Array] = {}
        self._readouts: dict[str, Array] = {}
        self._side = 0

    @property
    def delay(self) -> int:
        """Frames by which each output lags its input."""
        return self.model.contract.delay

    def feed(self, x: Array | Mapping[str, Array]) -> Result:
        """Feed any number of frames.

        Args:
            x: `[batch, time, ...]` as the contract's input says; arrays by name where the artifact
                has several inputs.

        Returns:
            The output frames that are ready; one array where the artifact has one output, else a
            dict by name. Outputs without a time axis hold their value after the last frame, NaN
            before any. The arrays are the caller's own.

        Raises:
            InputError: the input does not fit. States and position are as they were.
            StreamError: the stream was flushed.
        """
        if self._flushed:
            raise StreamError(
                "the stream was flushed: its sequence has ended",
                hint="Call reset() to begin the next sequence.",
            )
        named: Mapping[str, Any] = x if isinstance(x, dict) else {self._first_input: x}
        bound = self._last
        # Most chunks are shaped like the one before, which was held against the contract already.
        if bound is None or not bound.fill(named):
            return self._admit(x)
        if self.strict:
            refuse_not_finite(bound.inputs, self.position)
        results = self._run_bound(bound)
        self.position += bound.frames
        return results

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
        self._readouts = {}
        self._held, self._last = {}, None

    def clone(self) -> Stream:
        """A stream of its own that goes on from here, over the same model."""
        twin = Stream(self.model, batch=self.batch, strict=self.strict)
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
        if not self._fed:
            return {s.name: s.start(batch=self.batch) for s in self.model.contract.states}
        return {name: value.numpy().copy() for name, value in self._sides[self._side].items()}

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

    def _admit(self, x: Array | Mapping[str, Array]) -> Result:
        """Hold `x` against the contract, behind what is held; run what is ready of it."""
        contract = self.model.contract
        arrays = fit_inputs(contract, x)
        frames = self._frames(arrays)
        if frames == 0:
            return self._idle()
        if self.strict:
            refuse_not_finite(arrays, self.position)
        if self._last is None and self._held:
            arrays = chunks.in_a_row(contract.inputs, [self._held, arrays])
        ready = chunks.fed_after(contract, self.position + frames) - self._fed
        whole = chunks.cut(contract.inputs, arrays, 0, ready)
        results = self._run(whole, ready) if ready else self._idle()
        self.position += frames
        left = chunks.cut(contract.inputs, arrays, ready, None)
        self._held = {x: part.copy() for x, part in left.items()}
        alike = self._only_frames and self._fed == self.position and contract.chunk is None
        self._last = self._bound.get(ready) if alike else None
        return results

    def _run(self, arrays: Mapping[str, Array], frames: int) -> Result:
        """Run over frames that are ready: at first with caches of their own lengths, then bound."""
        if self.model.contract.chunk is not None:
            return self._run_chunks(arrays, frames, length=None)
        if self._fed:
            bound = self._bound_for(frames)
            bound.fill(arrays)
            return self._run_bound(bound)
        results = self._run_unbound(arrays, frames, length=None)
        self._put_states({s.name: results[s.output_name] for s in self.model.contract.states})
        return self._keep_readouts(results)

    def _put_states(self, states: Mapping[str, Array]) -> None:
        for name, value in states.items():
            buffer = self._sides[self._side][name].numpy()
            if value.shape != buffer.shape:
                raise ArtifactError(
                    f"state {name} is {list(value.shape)} after the first run, but its"
                    f" contract says {list(buffer.shape)}",
                    hint="The graph or its metadata was edited by hand; export it again.",
                )
            buffer[...] = value

    def _run_chunks(self, arrays: Mapping[str, Array], frames: int, length: int | None) -> Result:
        """Run chunk after chunk, each of the one length that the artifact takes."""
        contract, before, fed = self.model.contract, self.states(), self._fed
        chunk = contract.chunk or 1
        self._put_states(before)
        bound, parts = self._bound_for(chunk), []
        try:
            for start in range(0, frames, chunk):
                bound.fill(chunks.cut(contract.inputs, arrays, start, start + chunk))
                masks = (chunks.mask(p, fed + start, chunk, length) for p in contract.masks)
                bound.mask(*masks)
                bound.run(self._side)
                self._side ^= 1
                parts.append(chunks.of_the_sequence(contract, bound.outputs, fed + start, length))
        except InputError:
            self._put_states(before)
            raise
        return self._keep_readouts(chunks.in_a_row(contract.outputs, parts))

    def _run_bound(self, bound: Bound) -> Result:
        results = bound.run(self._side)
        self._side ^= 1
        if self._readout_names:
            self._readouts = {name: bound.outputs[name].copy() for name in self._readout_names}
        return results

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

    def _kept_inputs(self) -> dict[str, Array]:
        """The frames that are held, and the inputs without frames as they were given last."""
        if self._last is None:
            return self._held
        return chunks.cut(self.model.contract.inputs, self._last.inputs, 0, 0)

    def _keep_readouts(self, results: Mapping[str, Array]) -> Result:
        self._readouts = {name: results[name].copy() for name in self._readout_names}
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

    def _bound_for(self, frames: int) -> Bound:
        bound = self._bound.get(frames)
        if bound is None:
            if len(self._bound) >= _KEPT_LENGTHS:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[frames] = Bound(self.model, self.batch, frames, self._sides)
        return bound

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
        self._last = None
        self.position, self._flushed = position, flushed
        self._readouts = {name: arrays[name] for name in self._readout_names if name in arrays}
        if self._fed:
            self._put_states({s.name: arrays[s.name] for s in self.model.contract.states})

    def _go_along(
        self, frames: int, arrays: Mapping[str, Array], readouts: Mapping[str, Array]
    ) -> None:
        """Note frames that were run elsewhere, together with other streams'."""
        self.position += frames
        self._last = None
        if not self._only_frames:
            left = chunks.cut(self.model.contract.inputs, arrays, frames, None)
            self._held = {name: part.copy() for name, part in left.items()}
        self._readouts = {name: readouts[name] for name in self._readout_names if name in readouts}


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
        parts.append(named(contract, stream.feed(chunks.cut(contract.inputs, feeds, start, stop))))
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
