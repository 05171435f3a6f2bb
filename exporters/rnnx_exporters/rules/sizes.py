"""Operators that compute with sizes, and those that lay frames out by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from rnnx_exporters.edits import Position, Size, Sizes
from rnnx_exporters.memory import Memory
from rnnx_exporters.rules.reading import LENGTH_UNKNOWN, axis_attribute, constant, frames_of, rank
from rnnx_exporters.timeline import Fact, Frames, Length, Planned, Refused


def shape(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Shape: a vector of sizes, one of which may count frames."""
    axes = rank(node.inputs[0])
    start = axis_attribute(node, "start", 0, axes)
    end = axis_attribute(node, "end", axes, axes)
    frames = facts[0]
    flags = tuple(axis == frames_of(frames) for axis in range(axes))[start:end]
    clock = frames.clock if isinstance(frames, Frames) and frames.rows is None else None
    return [Length(flags, clock) if any(flags) else None]


def expand(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Expand: along axes other than time, or over as many frames as another wire holds."""
    frames, sizes = facts[0], facts[1]
    if not isinstance(frames, Frames):
        return laid_out(frames, sizes)
    before, after = node.inputs[0], node.outputs[0]
    axis = frames.axis + rank(after) - rank(before)
    if sizes is None and _fixed(node, axis - rank(after)):
        raise Refused("it expands the frames to a fixed length")
    if isinstance(sizes, Length) and _others(sizes, axis, rank(after)):
        raise Refused("it lays the frames out along a second axis that counts frames")
    return Planned([replace(frames, axis=axis)], [Sizes(node, partial(_expanded, frames, axis))])


def constant_of_shape(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """ConstantOfShape: as many frames as another wire holds."""
    return laid_out(None, facts[0])


def range_(node: ir.Node, facts: list[Fact]) -> Planned:
    """Range: the place of every frame in the sequence."""
    limit = facts[1]
    start, delta = facts[0], facts[2]
    if start is not None or delta is not None or not isinstance(limit, Length):
        raise Refused(LENGTH_UNKNOWN)
    first, step = (float(constant(node.inputs[place]).reshape(())) for place in (0, 2))
    if limit.clock is None or step != 1 or limit.plus != first:
        raise Refused(LENGTH_UNKNOWN)
    return Planned([Frames(0, limit.clock)], [Position(node, limit.clock)])


def laid_out(data: Fact, sizes: Fact) -> Sequence[Fact]:
    """A wire without frames, laid out over sizes that may count frames."""
    if not isinstance(sizes, Length):
        return [data]
    if data is not None:
        raise Refused("it spreads the value at the end of the sequence over all frames")
    if sum(sizes.flags) != 1:
        raise Refused("it lays the frames out along a second axis that counts frames")
    if sizes.clock is None or sizes.plus:
        raise Refused(LENGTH_UNKNOWN)
    return [Frames(sizes.flags.index(True), sizes.clock)]


def joined(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Concat of sizes."""
    parts = [(v, f) for v, f in zip(node.inputs, facts, strict=True) if v is not None]
    flags = sum((_flags(value, fact) for value, fact in parts), ())
    counts = {(f.clock, f.plus) for f in facts if isinstance(f, Length)}
    clock, plus = counts.pop() if len(counts) == 1 else (None, 0)
    return [Length(flags, clock, plus)]


def cut(node: ir.Node, sizes: Length) -> Sequence[Fact]:
    """Slice of sizes."""
    start, end = (int(constant(node.inputs[i]).reshape(-1)[0]) for i in (1, 2))
    return _left(sizes, sizes.flags[start:end])


def picked(node: ir.Node, sizes: Length) -> Sequence[Fact]:
    """Gather from sizes."""
    found = np.asarray(sizes.flags)[constant(node.inputs[1]).astype(int)]
    return _left(sizes, tuple(bool(flag) for flag in found.reshape(-1)))


def _left(sizes: Length, flags: tuple[bool, ...]) -> Sequence[Fact]:
    return [replace(sizes, flags=flags) if any(flags) else None]


def _flags(value: ir.Value, fact: Fact) -> tuple[bool, ...]:
    if isinstance(fact, Length):
        return fact.flags
    if fact is not None or value.shape is None or not isinstance(value.shape[0], int):
        raise Refused("it joins sizes with something else")
    return (False,) * value.shape[0]


def _fixed(node: ir.Node, behind: int) -> bool:
    """Whether a constant asks for other than as many frames as there are."""
    sizes = node.inputs[1]
    tensor = None if sizes is None else ir.convenience.get_const_tensor(sizes)
    asked = [] if tensor is None else tensor.numpy().reshape(-1).tolist()
    return len(asked) >= -behind and asked[behind] != 1


def _expanded(frames: Frames, axis: int, memory: Memory, node: ir.Node) -> list[Size]:
    """The sizes that the axes are expanded to; 1 leaves one as it is."""
    before, after = node.inputs[0], node.outputs[0]
    assert before is not None
    old = memory.dims(before, frames)
    new = memory.dims(after, replace(frames, axis=axis))
    padded = (1,) * (len(new) - len(old)) + old
    return [_asked(*pair) for pair in zip(padded, new, strict=True)]


def _asked(before: int | str, after: int | str) -> int:
    if isinstance(after, int):
        return after
    if before != after:
        raise Refused("it expands to a size that is not known")
    return 1


def _others(sizes: Length, axis: int, axes: int) -> bool:
    """Whether an axis other than that of time counts frames."""
    ahead = axes - len(sizes.flags)
    return any(flag and place + ahead != axis for place, flag in enumerate(sizes.flags))


RULES = {
    "ConstantOfShape": constant_of_shape,
    "Expand": expand,
    "Range": range_,
    "Shape": shape,
}
