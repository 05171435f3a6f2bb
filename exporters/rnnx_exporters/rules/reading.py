"""What rules read off a node: ranks, axes, constant inputs, and the frames among their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx_exporters.timeline import Fact, Frames, Last, Length, Refused

LENGTH_UNKNOWN = "it computes with the number of frames, which a stream does not know"
TIME_IS_CHANNEL = "time is its channel axis, so the length would be fixed"
TRANSPOSE = "Transpose before it, so that features are its channels: [batch, features, time]."
FORWARD = (
    "Retrain with a forward layer; where the future helps, delay the targets by a few frames so"
    " that the layer sees a limited look-ahead."
)
_SO_FAR = "Take the value so far, which every frame knows: a running mean, or a recurrent state."


def rank(value: ir.Value | None) -> int:
    """The number of axes of a wire."""
    if value is None or value.shape is None:
        raise Refused("its shape is not known", "Run onnx.shape_inference on the file first.")
    return len(value.shape)


def ints(node: ir.Node, name: str, default: Sequence[int]) -> Sequence[int]:
    """A list attribute."""
    return node.attributes[name].as_ints() if name in node.attributes else default


def flag(node: ir.Node, name: str) -> bool:
    """An attribute that is 0 or 1, 0 by default."""
    return name in node.attributes and node.attributes[name].as_int() != 0


def size_of(value: ir.Value | None, axis: int) -> int:
    """The size of an axis that must be fixed."""
    size = None if value is None or value.shape is None else value.shape[axis]
    if not isinstance(size, int):
        raise Refused("the shape of a parameter is not known")
    return size


def axis_attribute(node: ir.Node, name: str, default: int, axes: int) -> int:
    """An axis attribute, counted from the front."""
    attribute = node.attributes.get(name)
    axis = default if attribute is None else attribute.as_int()
    return axis + axes if axis < 0 else axis


def constant(value: ir.Value | None) -> npt.NDArray[Any]:
    """The value of a constant input."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise Refused("a parameter that must be constant is computed")
    return np.asarray(tensor.numpy())


def axes_input(node: ir.Node, position: int, axes: int) -> list[int]:
    """An axes parameter, given as an input or an attribute, counted from the front."""
    if len(node.inputs) > position and node.inputs[position] is not None:
        found = [int(axis) for axis in constant(node.inputs[position]).reshape(-1)]
    elif "axes" in node.attributes:
        found = list(node.attributes["axes"].as_ints())
    else:
        found = []
    return [axis + axes if axis < 0 else axis for axis in found]


def frames_of(fact: Fact) -> int | None:
    """The time axis, if the wire holds frames."""
    return fact.axis if isinstance(fact, Frames) else None


def alone(frames: Frames) -> None:
    """Refuse if time shares its axis with the batch."""
    if frames.rows is not None:
        raise Refused("it goes along an axis in which time and batch are merged")


def at(facts: Sequence[Fact], axis: int) -> Frames:
    """The frames among the inputs, on another axis."""
    return replace(next(fact for fact in facts if isinstance(fact, Frames)), axis=axis)


def only_first(facts: Sequence[Fact]) -> None:
    """Refuse if any input but the first depends on time."""
    if any(fact is not None for fact in facts[1:]):
        raise Refused("a parameter of it depends on the frames")


def no_mixing(facts: Sequence[Fact]) -> None:
    """Refuse if frames meet a value that is known only when the sequence has ended."""
    kinds = {type(fact) for fact in facts if fact is not None}
    if Frames in kinds and Last in kinds:
        raise Refused("it mixes every frame with the value at the end of the sequence", _SO_FAR)
    if Length in kinds and len(kinds) > 1:
        raise Refused(LENGTH_UNKNOWN)
