"""Buffers bound once and run again and again: what makes a step cheap.

States are never aliased: each has two buffers, and two bindings are used in turn, one reading the
first and writing the second, the other the reverse. A run that fails has written only buffers that
hold nothing, so whatever was there before is there still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.model import Model, unwrap

if TYPE_CHECKING:
    import onnxruntime as ort

    from rnnx_runtime.contract import Port

_NDARRAY = np.ndarray

Array = npt.NDArray[Any]
Result = Array | dict[str, Array]

# Bound buffers kept for chunk lengths met before; a source that varies its chunks meets few.
_KEPT_LENGTHS = 8


class Buffers:
    """The states of some sequences that advance together, and what is bound over them.

    Args:
        model: the artifact.
        batch: how many sequences.
    """

    def __init__(self, model: Model, batch: int) -> None:
        self.batch = batch
        self.side = 0  # the one that the next run reads
        self.sides = tuple(
            {s.name: np.zeros(s.shape(batch=batch), s.dtype) for s in model.contract.states}
            for _ in range(2)
        )
        self._model = model
        self._bound: dict[int, Bound] = {}

    def load(self, states: Iterable[Array]) -> None:
        """Take these states, in the order of the contract.

        Raises:
            ArtifactError: one has another shape than the contract says.
        """
        for (name, buffer), value in zip(self.sides[self.side].items(), states, strict=True):
            refuse_misshapen(name, value, buffer.shape)
            buffer[...] = value

    def states(self) -> tuple[Array, ...]:
        """Copies of the states, in the order of the contract."""
        return tuple(value.copy() for value in self.sides[self.side].values())

    def bound_for(self, frames: int) -> Bound:
        """Buffers for chunks of so many frames."""
        bound = self._bound.get(frames)
        if bound is None:
            if len(self._bound) >= _KEPT_LENGTHS:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[frames] = Bound(self._model, self, frames)
        return bound


class Bound:
    """Buffers for chunks of one length, and the two bindings over them.

    Memory is bound by its address, so the arrays are held here for as long as the bindings.

    Attributes:
        frames: the length of a chunk.
        inputs, outputs: the buffers by name.
        readouts: the names of outputs without a time axis.
    """

    def __init__(self, model: Model, buffers: Buffers, frames: int) -> None:
        contract = model.contract
        self.frames = frames
        self.inputs = {p.name: _allocate(p, buffers.batch, frames) for p in contract.inputs}
        self.outputs = {p.name: _allocate(p, buffers.batch, frames) for p in contract.outputs}
        self.readouts = contract.readouts
        self._masks = {p.name: _allocate(p, buffers.batch, frames) for p in contract.masks}
        self.mask(*(True for _ in self._masks))  # inside a sequence; its end is run by itself
        self._buffers = buffers
        step = model.step if buffers.batch == 1 else None
        self._step = step if step is not None and step.frames == frames else None
        session = model.session if self._step is None else self._step.session
        self._run = session.run_with_iobinding
        self._bindings = tuple(self._bind(session, side) for side in (0, 1))
        self._first_input, self._only_input = next(iter(self.inputs.items()))
        self._only_output = next(iter(self.outputs.values()))
        self._shape, self._dtype = self._only_input.shape, self._only_input.dtype

    def step(self, x: Array | Mapping[str, Array]) -> Array | None:
        """`fill`, `run` and `results` in one, for one input and one output.

        A step of a small network takes microseconds, of which every call of Python is a part.

        Returns:
            The output; None, where `x` is not just like the buffer: nothing has happened then.
        """
        if type(x) is not _NDARRAY or x.shape != self._shape or x.dtype != self._dtype:
            return None
        self._only_input[...] = x
        side = self._buffers.side
        try:
            self._run(self._bindings[side])
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise _failed(error) from error
        self._buffers.side = side ^ 1
        return self._only_output.copy()

    def fill(self, x: Array | Mapping[str, Array]) -> bool:
        """Copy arrays in if their names, shapes and dtypes are just those of the buffers."""
        arrays = x if isinstance(x, dict) else {self._first_input: x}
        if arrays.keys() != self.inputs.keys():
            return False
        for name, buffer in self.inputs.items():
            array = arrays[name]
            if not isinstance(array, np.ndarray) or array.shape != buffer.shape:
                return False
            if array.dtype != buffer.dtype:
                return False
            buffer[...] = array
        return True

    def mask(self, *masks: Array | bool) -> None:
        """Tell which frames are of the sequence, mask by mask."""
        for buffer, mask in zip(self._masks.values(), masks, strict=True):
            buffer[...] = mask

    def run(self) -> None:
        """Run once, from the states that the buffers hold to the next.

        Raises:
            InputError: onnxruntime failed; the states are as they were.
        """
        side = self._buffers.side
        try:
            self._run(self._bindings[side])
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise _failed(error) from error
        self._buffers.side = side ^ 1

    def results(self, *, copy: bool = True) -> Result:
        """What came out; copies, or the buffers themselves."""
        outputs = self.outputs
        return unwrap({name: x.copy() for name, x in outputs.items()} if copy else outputs)

    def _bind(self, session: ort.InferenceSession, side: int) -> ort.IOBinding:
        read, write = self._buffers.sides[side], self._buffers.sides[side ^ 1]
        taken = self.inputs | {f"{name}_in": value for name, value in read.items()}
        given = self.outputs | {f"{name}_out": value for name, value in write.items()}
        if self._step is None:
            taken |= self._masks
        binding = session.io_binding()
        for name, value in taken.items():
            binding.bind_input(name, "cpu", 0, value.dtype.type, *self._place(name, value))
        for name, value in given.items():
            binding.bind_output(name, "cpu", 0, value.dtype.type, *self._place(name, value))
        return binding

    def _place(self, name: str, value: Array) -> tuple[tuple[int, ...], int]:
        """The shape and the address of an array, which the step form takes under its own shape."""
        shape = value.shape if self._step is None else self._step.shapes[name]
        return shape, value.ctypes.data


def refuse_misshapen(name: str, value: Array, shape: tuple[int, ...]) -> None:
    """Refuse a state that is not of the shape that the contract gives it under way.

    Raises:
        ArtifactError: it is not.
    """
    if value.shape != shape:
        raise ArtifactError(
            f"state {name} is {list(value.shape)} after the first run, but its"
            f" contract says {list(shape)}",
            hint="The graph or its metadata was edited by hand; export it again.",
        )


def _failed(error: Exception) -> InputError:
    return InputError(f"onnxruntime failed on this input: {error}")


def _allocate(port: Port, batch: int, frames: int) -> Array:
    return np.zeros(port.shape(batch=batch, frames=port.here(frames)), port.dtype)
