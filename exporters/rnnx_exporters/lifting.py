"""Recurrent states become inputs and outputs of the graph: those of RNN, GRU, LSTM and Scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters.memory import Memory
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_exporters.timeline import Frames, refuse
from rnnx_runtime.contract import Dims

FIRST_STATE = 5
_KINDS = ("h", "c")
_NAMES = ("Y", "Y_h", "Y_c")
# What moves a state that is passed in to where it is used, and computes nothing.
_MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
)


@dataclass(frozen=True, slots=True)
class Lift:
    """The states of an RNN, GRU or LSTM node, `[1, batch, hidden_size]` inside the graph."""

    node: ir.Node
    frames: Frames

    def apply(self, memory: Memory) -> None:
        """Take each state from an input of the graph, and give it back."""
        node = self.node
        kinds = _KINDS if "LSTM" in node.op_type else _KINDS[:1]
        # Foreign nodes may have no name.
        self._complete_outputs(len(kinds), node.name or f"rnnx.{len(memory.states)}")
        node.resize_inputs(max(len(node.inputs), FIRST_STATE + len(kinds)))
        size = node.attributes["hidden_size"].as_int()
        x = node.inputs[0]
        assert x is not None
        batch = memory.dims(x, self.frames)[1]
        rows = memory.shapes.rows(batch)
        # Where the batch is merged with another axis, each sequence has a state for each row.
        dims = (memory.shapes.batch, rows, size) if rows > 1 else (batch, size)
        for place, kind in enumerate(kinds, start=FIRST_STATE):
            initial = initial_state(memory, node, place, dims)
            taken, kept = memory.take(node, kind, dims, memory.dtype(x), initial=initial)
            node.replace_input_with(place, _laid(memory, node, taken, (1, -1, size), rows))
            after = node.outputs[place - FIRST_STATE + 1]
            given = _laid(memory, node, after, (-1, rows, size), rows)
            memory.give(kept, _begun(memory, node, self.frames, given, taken))

    def _complete_outputs(self, kinds: int, name: str) -> None:
        """Give the node all its state outputs; an exporter may have left out unused ones."""
        self.node.resize_outputs(1 + kinds)
        for value, letter in zip(self.node.outputs, _NAMES, strict=False):
            value.name = value.name or f"{name}.{letter}"


def _laid(
    memory: Memory, node: ir.Node, value: ir.Value, sizes: tuple[int, int, int], rows: int
) -> ir.Value:
    """A state as the node takes it, or the reverse; `sizes` where each sequence has many rows."""
    if rows > 1:
        return memory.insert(node, "Reshape", [value, memory.constant(*sizes)])
    op_type = "Unsqueeze" if sizes[0] == 1 else "Squeeze"
    return memory.insert(node, op_type, [value, memory.constant(0)])


@dataclass(frozen=True, slots=True)
class Carry:
    """What the body of a Scan carries from frame to frame: its input and output `place`."""

    node: ir.Node
    place: int
    frames: Frames

    def apply(self, memory: Memory) -> None:
        """Take it from an input of the graph, and give it back."""
        node, place = self.node, self.place
        out, value = node.outputs[place], node.inputs[place]
        assert value is not None
        if memory.ends and (out.uses() or out.is_graph_output()):
            raise refuse(
                node,
                "what it carries is read when the sequence ends, after frames of padding",
                "Read the last frame of what it gives for every frame instead.",
            )
        dims = memory.shapes.dims(value, time_axis=-1)
        initial = initial_state(memory, node, place, dims)
        taken, kept = memory.take(node, "carry", dims, memory.dtype(value), initial=initial)
        node.replace_input_with(place, taken)
        memory.give(kept, _begun(memory, node, self.frames, out, taken))


def _begun(
    memory: Memory, node: ir.Node, frames: Frames, after: ir.Value, before: ir.Value
) -> ir.Value:
    """The state after a call; that before it, if no frame of the call is of the sequence."""
    if not memory.skip(frames.clock):
        return after
    begun = memory.cut(node, memory.mask(frames.clock), 0, end=1)
    return memory.insert(node, "Where", [begun, after, before])


def drop_zero_states(model: ir.Model) -> None:
    """Leave out initial states of zeros, which are what a recurrent node starts from anyway."""
    for node in recurrent_nodes(model):
        for place in range(FIRST_STATE, min(len(node.inputs), FIRST_STATE + 2)):
            if _is_zeros(node.inputs[place]):
                node.replace_input_with(place, None)
    common.RemoveUnusedNodesPass()(model)


def _is_zeros(value: ir.Value | None) -> bool:
    content = None if value is None else ir.convenience.get_const_tensor(value)
    if content is not None:
        return not np.any(content.numpy())
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not np.any(fill.as_tensor().numpy())
    sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return node.op_type in _MOVES and all(map(_is_zeros, sources))


def initial_state(memory: Memory, node: ir.Node, place: int, dims: Dims) -> npt.NDArray[Any] | None:
    """The state of shape `dims` before the first frame, of one sequence; None for zeros.

    A state that the user passes in is the stream's own from now on, and starts at zeros.
    """
    value = memory.shapes.offline(node.inputs[place])
    if value is None or _is_passed_in(value):
        return None
    if _comes_from_input(value):
        raise refuse(
            node,
            "its initial state is computed from an input, and the stream would forget that input",
            "Compute it before, and give the model the initial state itself as an argument.",
        )
    found = memory.shapes.constant(value)
    if node.op_type != "Scan":
        found = found[0].reshape(-1, *map(int, dims[1:]))  # of the only direction
    axis = memory.shapes.sequence_axis(dims)
    found = found[None] if axis is None else np.moveaxis(found, axis, 0)
    if np.any(found != found[:1]):
        raise refuse(node, "its initial state differs between the sequences of a batch", None)
    first: npt.NDArray[Any] = found[0]
    return first if np.any(first) else None


def _is_passed_in(value: ir.Value) -> bool:
    """Whether it is an input of the graph, as it came."""
    node = value.producer()
    if node is None or node.op_type not in _MOVES or node.inputs[0] is None:
        return value.is_graph_input()
    return _is_passed_in(node.inputs[0])


def _comes_from_input(value: ir.Value) -> bool:
    """Whether its content, not only its shape, comes from an input of the graph."""
    node = value.producer()
    if node is None:
        return value.is_graph_input()
    if node.op_type in ("Shape", "Size"):
        return False
    return any(source is not None and _comes_from_input(source) for source in node.inputs)
