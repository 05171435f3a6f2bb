"""What a streaming graph remembers: builds the states, and the masks that end a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
import onnx_ir as ir

from rnnx_exporters.clock import Clock
from rnnx_exporters.lengths import least
from rnnx_exporters.tidy import layer_of, module_of
from rnnx_exporters.timeline import Frames, Plan, Refused
from rnnx_exporters.wire_shapes import WireShapes
from rnnx_runtime.contract import Dims, Port, State
from rnnx_runtime.count import Count

# As an end of a Slice: all that follows.
END = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Kept:
    """A state that was taken in and is to be given back.

    Attributes:
        node: the node it serves.
        state: the state.
        order: the axes of its wire, batch first.
        leading: whether it has an axis of size 1 in front, for want of a batch.
    """

    node: ir.Node
    state: State
    order: list[int]
    leading: bool


class Memory:
    """Carries out the edits of one graph.

    A cache is a state that holds the frames which are still needed. It begins with the left padding
    alone, so that the first call gives fewer frames and no garbage reaches a recurrent layer; from
    then on it keeps its length, since every call takes a multiple of `chunk_multiple` frames.

    Args:
        model: the graph, changed in place.
        plan: its facts.
        shapes: the shapes of its wires.
        chunk: how many frames every call takes, if that is fixed; caches then begin at their full
            length, as if frames had come before the sequence, and masks tell that those are none.

    Attributes:
        first_chunk: the least number of frames after which every wire has its first frame.
        past: how many frames went in before the sequence.
        chunk_multiple: how many frames all strides divide.
        ends: whether the end of a sequence takes a run of its own.
        states, masks: what was made so far.
    """

    def __init__(
        self, model: ir.Model, plan: Plan, shapes: WireShapes, chunk: int | None = None
    ) -> None:
        clocks = plan.clocks()
        self.model = model
        self.shapes = shapes
        self.chunk_multiple = lcm(*((1 / clock.stride).denominator for clock in clocks))
        self.chunk = chunk
        self.first_chunk = _first_chunk([clock.count for clock in clocks])
        self.past = 0 if chunk is None else -(-self.first_chunk // chunk) * chunk
        self.ends = any(clock.count != clock.length for clock in clocks)
        self.ends = self.ends or (self.first_chunk, self.chunk_multiple) != (1, 1)
        self.ends = self.ends or (chunk or 1) > 1
        self.states: list[State] = []
        self.masks: dict[tuple[Count, Count, int], Port] = {}
        self._alike: dict[ir.Value, ir.Value] = {}
        self._constants: dict[tuple[int, ...], ir.Value] = {}

    def count(self, clock: Clock) -> int:
        """The frames of a wire after the first chunk, or after all that is past."""
        return clock.count(self.past or self.first_chunk)

    def here(self, clock: Clock) -> Count:
        """The frames that come out of a wire, those of the past among them."""
        if not self.past:
            return clock.count
        rate = 1 / clock.stride
        return Count().then(multiplier=rate.numerator, divisor=rate.denominator)

    def skip(self, clock: Clock) -> int:
        """How many frames of a wire are of what is past."""
        return max(0, int(clock.lag(self.past))) if self.past else 0

    def remember(
        self,
        node: ir.Node,
        value: ir.Value,
        frames: Frames,
        *,
        start: int,
        keep: int,
        fill: float = 0.0,
        masked: bool = False,
        dims: Dims | None = None,
    ) -> ir.Value:
        """What is kept of `value` from the call before, and behind it `value`, as one wire.

        Args:
            node: the node that needs it.
            value: a wire that holds frames.
            frames: its fact.
            start: how many frames, all `fill`, stand before the first.
            keep: how many frames at the end of the wire are kept for the next call.
            fill: the content of the frames before the first.
            masked: whether the frames behind the end of the sequence are `fill`, too.
            dims: the shape of a wire of floats that the offline graph does not have.
        """
        dtype = "float32" if dims else self.dtype(value)
        sizes = list(dims or self.dims(value, frames))
        if masked or (start and self.skip(frames.clock)):
            value = self._masked(node, value, frames, fill, behind=len(sizes) - 1 - frames.axis)
        if not start and not keep:
            return value
        start = keep if self.past else start
        sizes[frames.axis] = keep
        taken, kept = self.take(
            node, "cache", sizes, dtype, time_axis=frames.axis, start_frames=start, fill=fill
        )
        joined = self.insert(node, "Concat", [taken, value], axis=frames.axis)
        rest = self.cut(node, joined, frames.axis, start=-keep if keep else END)
        self.give(kept, rest)
        return joined

    def dims(self, value: ir.Value, frames: Frames) -> Dims:
        """The shape of a wire that holds frames."""
        return self.shapes.dims(self._alike.get(value, value), frames.axis)

    def dtype(self, value: ir.Value) -> str:
        """The numpy dtype name of a wire."""
        return _dtype(self._alike.get(value, value))

    def last_place(self, node: ir.Node, clock: Clock) -> ir.Value:
        """The place of the last frame of the sequence in this call, from 1; 0 if it has none."""
        here = self.insert(node, "Cast", [self.mask(clock)], to=ir.DataType.INT64)
        if not self.past:
            return self.insert(node, "ReduceSum", [here], keepdims=1)
        places = self.constant(*range(1, int((self.chunk or 0) / clock.stride) + 1))
        counted = self.insert(node, "Mul", [here, places])
        return self.insert(node, "ReduceMax", [counted, self.constant(0)], keepdims=1)

    def blanked(self, node: ir.Node, value: ir.Value, frames: Frames) -> ir.Value:
        """The wire with zeros in all frames that are not of the sequence."""
        behind = len(self.dims(value, frames)) - 1 - frames.axis
        return self.alike(self._masked(node, value, frames, 0.0, behind=behind), value)

    def alike(self, new: ir.Value, old: ir.Value) -> ir.Value:
        """Note that a new wire has the shape and dtype of one of the offline graph."""
        self._alike[new] = self._alike.get(old, old)
        return new

    def take(
        self,
        node: ir.Node,
        kind: str,
        dims: Sequence[int | str],
        dtype: str,
        *,
        time_axis: int | None = None,
        **start: Any,
    ) -> tuple[ir.Value, Kept]:
        """A new state of `node`, as a wire of shape `dims`, and what `give` needs to return it."""
        if any(isinstance(dim, str) and dim != self.shapes.batch for dim in dims):
            raise Refused(
                "it remembers frames of a wire whose batch is merged with another axis",
                "Give that axis to a 2-d convolution or pool, or let a recurrent layer remember.",
            )
        # A state's first axis counts sequences.
        sequences = self.shapes.sequence_axis(dims, time_axis)
        leading = sequences is None
        order = sorted(range(len(dims)), key=lambda axis: axis != sequences)
        state = State(
            name=f"s{len(self.states):03d}",
            dtype=dtype,
            dims=(*(1,) * leading, *(dims[axis] for axis in order)),
            kind=kind,
            module=module_of(node),
            layer=layer_of(node),
            time_axis=None if time_axis is None else order.index(time_axis) + leading,
            **start,
        )
        self.states.append(state)
        kept = Kept(node, state, order, leading)
        value = self._input(state.input_name, _free(state), ir.DataType.from_numpy(np.dtype(dtype)))
        if leading:
            value = self.insert(node, "Squeeze", [value, self.constant(0)])
        return self._moved(node, value, [order.index(axis) for axis in range(len(order))]), kept

    def give(self, kept: Kept, value: ir.Value) -> None:
        """Make `value`, laid out as the wire that `take` made, the state's next content."""
        value = self._moved(kept.node, value, kept.order)
        if kept.leading:
            value = self.insert(kept.node, "Unsqueeze", [value, self.constant(0)])
        if value.is_graph_output() or value.is_graph_input():
            value = self.insert(kept.node, "Identity", [value])
        value.name = kept.state.output_name
        value.shape = ir.Shape(_free(kept.state))
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(kept.state.dtype)))
        self.model.graph.outputs.append(value)

    def cut(
        self,
        node: ir.Node,
        value: ir.Value,
        axis: int,
        *,
        start: int = 0,
        end: int = END,
        step: int = 1,
    ) -> ir.Value:
        """The frames from `start` to `end`."""
        parameters = [self.constant(number) for number in (start, end, axis, step)]
        return self.insert(node, "Slice", [value, *parameters[: 3 + (step != 1)]])

    def mask(self, clock: Clock, behind: int = 0) -> ir.Value:
        """A graph input, `[frames, 1, ...]` with `behind` ones: the frames of the sequence."""
        key = (clock.count, clock.length, behind)
        if key not in self.masks:
            name = f"mask{len(self.masks):03d}"
            dims: Dims = (f"{name}_time", *(1,) * behind)
            self.masks[key] = Port(
                name=name,
                dtype="bool",
                dims=dims,
                time_axis=0,
                stride=clock.stride,
                count=self.here(clock),
                length=clock.length,
                skip=self.skip(clock),
            )
            self._input(name, dims, ir.DataType.BOOL)
        name = self.masks[key].name
        return next(value for value in self.model.graph.inputs if value.name == name)

    def insert(
        self, node: ir.Node, op_type: str, inputs: Iterable[ir.Value | None], **attributes: Any
    ) -> ir.Value:
        """The output of a new node before `node`, which it serves."""
        made = ir.node(op_type, list(inputs), attributes)
        made.metadata_props.update(node.metadata_props)
        self.model.graph.insert_before(node, made)
        return made.outputs[0]

    def _moved(self, node: ir.Node, value: ir.Value, order: list[int]) -> ir.Value:
        """The wire with its axes in another order."""
        if order == sorted(order):
            return value
        return self.insert(node, "Transpose", [value], perm=order)

    def redirect(self, users: Iterable[tuple[ir.Node, int]], old: ir.Value, new: ir.Value) -> None:
        """Let all `users` of a wire, and the graph's outputs, read another."""
        self.alike(new, old)
        for node, place in users:
            node.replace_input_with(place, new)
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}.whole"
            new.type = old.type
            outputs = self.model.graph.outputs
            outputs[outputs.index(old)] = new

    def constant(self, *numbers: int) -> ir.Value:
        """A vector of integers."""
        if numbers not in self._constants:
            name = "rnnx." + "_".join(map(str, numbers)).replace("-", "minus")
            value = ir.tensor(np.array(numbers, np.int64))
            self._constants[numbers] = self._initializer(name, value)
        return self._constants[numbers]

    def _masked(
        self, node: ir.Node, value: ir.Value, frames: Frames, fill: float, *, behind: int
    ) -> ir.Value:
        content = ir.tensor(np.array(fill, self.dtype(value)))
        filler = self._initializer(f"rnnx.fill.{content.dtype.name}.{fill}", content)
        return self.insert(node, "Where", [self.mask(frames.clock, behind), value, filler])

    def _initializer(self, name: str, content: ir.TensorProtocol) -> ir.Value:
        found = self.model.graph.initializers.get(name)
        if found is None:
            found = ir.Value(name=name, const_value=content)
            found.shape = ir.Shape(content.numpy().shape)
            found.type = ir.TensorType(content.dtype)
            self.model.graph.register_initializer(found)
        return found

    def _input(self, name: str, dims: Sequence[int | str], dtype: ir.DataType) -> ir.Value:
        value = ir.Value(name=name, shape=ir.Shape(dims), type=ir.TensorType(dtype))
        self.model.graph.inputs.append(value)
        return value


def _first_chunk(counts: Sequence[Count]) -> int:
    """The least number of input frames after which every wire has a frame."""
    first = least(lambda frames: min(count(frames) for count in counts) >= 1)
    if first is None:
        raise Refused("however many frames go in, no output frame comes")
    return first


def _free(state: State) -> list[int | str]:
    """The state's shape; the frames of a cache are free, since it begins with others."""
    dims: list[int | str] = list(state.dims)
    if state.time_axis is not None:
        dims[state.time_axis] = f"{state.name}_time"
    return dims


def _dtype(value: ir.Value) -> str:
    if value.dtype is None:
        raise Refused(f"the dtype of {value.name!r} is not known")
    return str(value.dtype.numpy().name)
