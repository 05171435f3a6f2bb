"""Stream: one run through an artifact, fed in chunks, its states carried.

States are never aliased: each state has two buffers, and two bindings are used in turn, one reading
the first and writing the second, the other the reverse. A run that fails has written only buffers
that hold nothing, so the stream is where it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rnnx_runtime import snapshot
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import ArtifactError, InputError, StreamError
from rnnx_runtime.model import (
    Model,
    describe_missing_stream,
    fit_inputs,
    refuse_empty,
    size_along,
    unwrap,
)

Array = npt.NDArray[Any]
Result = Array | dict[str, Array]

# Bound buffers kept for chunk lengths met before; a source that varies its chunks meets few.
_KEPT_LENGTHS = 8


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
            {s.name: _allocate(s.shape(batch=batch), s.dtype) for s in contract.states}
            for _ in range(2)
        )
        self._first_input = contract.inputs[0].name
        self._readout_names = [p.name for p in contract.outputs if p.time_axis is None]
        self._bound: dict[int, _Bound] = {}
        self._last: _Bound | None = None
        self._readouts: dict[str, Array] = {}
        self._side = 0
        self.reset()

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
            bound = self._admit(x)
        if bound is None:
            return self._idle()
        if self.strict:
            self._refuse_not_finite(bound.inputs)
        results = bound.run(self._side)
        self._side ^= 1
        self.position += bound.frames
        if self._readout_names:
            self._readouts = {name: bound.outputs[name].copy() for name in self._readout_names}
        return results

    def flush(self) -> Result:
        """End the sequence and return its tail.

        Raises:
            StreamError: the stream was flushed before.
        """
        if self._flushed:
            raise StreamError("the stream was flushed before", hint="Call reset() first.")
        self._flushed = True
        return self._idle()

    def reset(self) -> None:
        """Begin a new sequence: start states, position 0."""
        for state in self.model.contract.states:
            self._sides[self._side][state.name].numpy()[...] = state.start(batch=self.batch)
        self.position = 0
        self._flushed = False
        self._readouts = {}

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
        contract = self.model.contract
        if taken.fingerprint != contract.fingerprint:
            raise StreamError("the snapshot was taken from another artifact")
        if taken.batch != self.batch:
            raise StreamError(
                f"the snapshot holds {taken.batch} sequences, this stream {self.batch}",
                hint=f"Open the stream with batch={taken.batch}.",
            )
        self._hold_memory(taken.arrays)
        self._adopt(taken.arrays, taken.position, taken.flushed)

    def states(self) -> dict[str, Array]:
        """Copies of the states by name (`s000`, ...), each `[batch, ...]`."""
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
        free = free or any(port.batch_axis is not None for port in contract.inputs)
        if self.batch != 1 and not free:
            raise InputError(
                f"{self.model.path!r} has no batch axis, so batch cannot be {self.batch}"
            )

    def _admit(self, x: Array | Mapping[str, Array]) -> _Bound | None:
        """Hold `x` against the contract; the buffers that hold it, or None if it has no frame."""
        arrays = fit_inputs(self.model.contract, x)
        frames = self._frames(arrays)
        if frames == 0:
            return None
        self._last = self._bound_for(frames)
        self._last.fill(arrays)
        return self._last

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

    def _refuse_not_finite(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise InputError(
                    f"input {name!r} holds {array[where]} at index {list(where)}"
                    f" (after {self.position} frames)",
                    hint="Clean the input, or let the network have such values: strict=False.",
                )

    def _bound_for(self, frames: int) -> _Bound:
        bound = self._bound.get(frames)
        if bound is None:
            if len(self._bound) >= _KEPT_LENGTHS:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[frames] = _Bound(self.model, self.batch, frames, self._sides)
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
        return self.states() | {name: value.copy() for name, value in self._readouts.items()}

    def _hold_memory(self, arrays: Mapping[str, Array]) -> None:
        contract = self.model.contract
        expected = {s.name: (s.dtype, s.shape(batch=self.batch)) for s in contract.states}
        readouts = {
            port.name: (port.dtype, port.shape(batch=self.batch, frames=0))
            for port in contract.outputs
            if port.time_axis is None and port.name in arrays
        }
        found = {name: (str(value.dtype), value.shape) for name, value in arrays.items()}
        if found != expected | readouts:
            raise StreamError("the snapshot's states do not fit this artifact")

    def _adopt(self, arrays: Mapping[str, Array], position: int, flushed: bool) -> None:
        for state in self.model.contract.states:
            self._sides[self._side][state.name].numpy()[...] = arrays[state.name]
        names = {state.name for state in self.model.contract.states}
        self._readouts = {name: value for name, value in arrays.items() if name not in names}
        self.position = position
        self._flushed = flushed


class _Bound:
    """Buffers for one chunk length and the two bindings over them.

    onnxruntime before 1.29 does not keep bound values alive, so they are held here.
    """

    def __init__(
        self, model: Model, batch: int, frames: int, sides: tuple[dict[str, ort.OrtValue], ...]
    ) -> None:
        contract = model.contract
        self.frames = frames
        self._taken = {p.name: _allocate_port(p, batch, frames) for p in contract.inputs}
        self._given = {p.name: _allocate_port(p, batch, frames) for p in contract.outputs}
        self.inputs = {name: value.numpy() for name, value in self._taken.items()}
        self.outputs = {name: value.numpy() for name, value in self._given.items()}
        self._only_output = unwrap(self.outputs)
        self._run = model.session.run_with_iobinding
        self._bindings = (
            self._bind(model, sides[0], sides[1]),
            self._bind(model, sides[1], sides[0]),
        )

    def fill(self, arrays: Mapping[str, Array]) -> bool:
        """Copy the arrays in if their names, shapes and dtypes are just those of the buffers."""
        if len(arrays) != len(self.inputs):
            return False
        for name, buffer in self.inputs.items():
            array = arrays.get(name)
            if not isinstance(array, np.ndarray) or array.shape != buffer.shape:
                return False
            if array.dtype != buffer.dtype:
                return False
            buffer[...] = array
        return True

    def run(self, side: int) -> Result:
        """Run once, reading the states of `side` and writing the other side's."""
        try:
            self._run(self._bindings[side])
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise InputError(f"onnxruntime failed on this input: {error}") from error
        if isinstance(self._only_output, np.ndarray):
            return self._only_output.copy()
        return {name: value.copy() for name, value in self.outputs.items()}

    def _bind(
        self, model: Model, read: dict[str, ort.OrtValue], write: dict[str, ort.OrtValue]
    ) -> ort.IOBinding:
        binding = model.session.io_binding()
        for name, value in self._taken.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in self._given.items():
            binding.bind_ortvalue_output(name, value)
        for state in model.contract.states:
            binding.bind_ortvalue_input(state.input_name, read[state.name])
            binding.bind_ortvalue_output(state.output_name, write[state.name])
        return binding


def _allocate_port(port: Port, batch: int, frames: int) -> ort.OrtValue:
    return _allocate(port.shape(batch=batch, frames=frames), port.dtype)


def _allocate(shape: tuple[int, ...], dtype: str) -> ort.OrtValue:
    """A buffer that onnxruntime owns; one over a numpy array would not keep the array alive."""
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type)
