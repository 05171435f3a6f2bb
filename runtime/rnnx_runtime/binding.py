"""Buffers bound once and run again and again: what makes a step cheap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import Model, unwrap

Array = npt.NDArray[Any]
Result = Array | dict[str, Array]


class Bound:
    """Buffers for one chunk length and the two bindings over them.

    onnxruntime before 1.29 does not keep bound values alive, so they are held here.
    """

    def __init__(
        self, model: Model, batch: int, frames: int, sides: tuple[dict[str, ort.OrtValue], ...]
    ) -> None:
        contract = model.contract
        self.frames = frames
        self._taken = {p.name: _allocate_port(p, batch, frames) for p in contract.inputs}
        self._masks = {p.name: _allocate_port(p, batch, frames) for p in contract.masks}
        self._given = {p.name: _allocate_port(p, batch, frames) for p in contract.outputs}
        for mask in self._masks.values():
            mask.numpy()[...] = True  # inside a sequence; its end is run once, unbound
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

    def mask(self, *masks: Array) -> None:
        """Tell which frames are of the sequence, mask by mask."""
        for buffer, mask in zip(self._masks.values(), masks, strict=True):
            buffer.numpy()[...] = mask

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
        for name, value in (self._taken | self._masks).items():
            binding.bind_ortvalue_input(name, value)
        for name, value in self._given.items():
            binding.bind_ortvalue_output(name, value)
        for state in model.contract.states:
            binding.bind_ortvalue_input(state.input_name, read[state.name])
            binding.bind_ortvalue_output(state.output_name, write[state.name])
        return binding


def _allocate_port(port: Port, batch: int, frames: int) -> ort.OrtValue:
    return allocate(port.shape(batch=batch, frames=port.here(frames)), port.dtype)


def allocate(shape: tuple[int, ...], dtype: str) -> ort.OrtValue:
    """A buffer that onnxruntime owns; one over a numpy array would not keep the array alive."""
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type)
