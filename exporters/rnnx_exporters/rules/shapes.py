"""Operators that move, cut and join axes, and those that compute with sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rnnx_exporters.rules.reading import (
    axes_input,
    axis_attribute,
    constant,
    frames_of,
    no_mixing,
    only_first,
    rank,
)
from rnnx_exporters.timeline import Fact, Frames, Last, Length, Refused

_LAST_INDICES = (-1,)


def shape(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Shape: a vector of sizes, one of which may count frames."""
    axes = rank(node.inputs[0])
    start = axis_attribute(node, "start", 0, axes)
    end = axis_attribute(node, "end", axes, axes)
    return [_length(tuple(axis == frames_of(facts[0]) for axis in range(axes))[start:end])]


def transpose(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Transpose: the axis moves."""
    axis = frames_of(facts[0])
    if axis is None:
        return facts[:1]
    axes = rank(node.inputs[0])
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(axes)[::-1]
    return [Frames(list(perm).index(axis))]


def squeeze(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Squeeze: axes of size 1 go."""
    axis = frames_of(facts[0])
    axes = axes_input(node, 1, rank(node.inputs[0]) if axis is not None else 1)
    if axis is None:
        return facts[:1]
    if not axes or axis in axes:
        raise Refused("it removes the time axis")
    return [Frames(axis - sum(gone < axis for gone in axes))]


def unsqueeze(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Unsqueeze: axes of size 1 come."""
    axis = frames_of(facts[0])
    if axis is None:
        return facts[:1]
    axes = sorted(axes_input(node, 1, rank(node.outputs[0])))
    for new in axes:
        axis += new <= axis
    return [Frames(axis)]


def reshape(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Reshape: time must stay an axis of its own."""
    sizes = facts[1] if len(facts) > 1 else None
    if isinstance(facts[0], Length):
        return facts[:1]
    if not isinstance(facts[0], Frames):
        return _filled(facts[0], sizes)
    if isinstance(sizes, Length):
        return _only_flag(sizes)
    return [Frames(_found(node, facts[0].axis))]


def expand(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Expand and ConstantOfShape: a size that counts frames makes a time axis."""
    sizes = facts[-1]
    if isinstance(facts[0], Frames) and len(facts) > 1:
        if not isinstance(sizes, Length):
            raise Refused("it expands to a fixed length")
        return _along(rank(node.outputs[0]), facts[0].axis - rank(node.inputs[0]), sizes)
    return _filled(facts[0] if len(facts) > 1 else None, sizes)


def concat(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Concat: along features; along time it would add frames."""
    if any(isinstance(fact, Length) for fact in facts):
        return [_length(sum((_flags(v, f) for v, f in _known(node, facts)), ()))]
    no_mixing(facts)
    times = {frames_of(fact) for fact in facts} - {None}
    if not times:
        return [Last()]
    axis = axis_attribute(node, "axis", 0, rank(node.outputs[0]))
    if axis in times:
        raise Refused("it adds frames to the sequence, which is not streamed yet")
    if len(times) != 1 or any(fact is None for fact in facts):
        raise Refused("one of its inputs has a fixed length along time")
    return facts[:1]


def split(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Split: along features."""
    only_first(facts)
    if frames_of(facts[0]) == axis_attribute(node, "axis", 0, rank(node.inputs[0])):
        raise Refused("it cuts the sequence in pieces")
    return facts[:1]


def slice_(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Slice: along features, or the last frame alone."""
    if isinstance(facts[0], Length):
        return [_length(_cut(node, np.asarray(facts[0].flags)))]
    axis = frames_of(facts[0])
    axes = axes_input(node, 3, rank(node.inputs[0])) or list(range(rank(node.inputs[0])))
    if axis is None or axis not in axes:
        only_first(facts)
        return facts[:1]
    place = axes.index(axis)
    if constant(node.inputs[1]).reshape(-1)[place] == -1 and _to_the_end(node, place):
        return [Last()]
    raise Refused("it cuts frames off the sequence, which is not streamed yet")


def gather(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Gather: a table looked up by frames, features picked, or the last frame taken."""
    data, indices = facts[0], facts[1]
    axis = axis_attribute(node, "axis", 0, rank(node.inputs[0]))
    if isinstance(data, Length):
        picked = np.asarray(data.flags)[constant(node.inputs[1])]
        return [_length(tuple(bool(flag) for flag in picked.reshape(-1)))]
    if data is None:
        found = frames_of(indices)
        return [indices] if found is None else [Frames(axis + found)]
    if indices is not None:
        raise Refused("it picks frames by an index that depends on the frames")
    return [_picked(node, data, axis)]


def flatten(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Flatten: time survives as the first axis alone."""
    at = axis_attribute(node, "axis", 1, rank(node.inputs[0]))
    if isinstance(facts[0], Frames) and not (facts[0].axis == 0 and at == 1):
        raise Refused("it merges the time axis with another")
    return facts[:1]


def pad(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Pad: along features."""
    only_first(facts)
    axis = frames_of(facts[0])
    if axis is None:
        return facts[:1]
    axes = rank(node.inputs[0])
    padded = axes_input(node, 3, axes) or list(range(axes))
    amounts = constant(node.inputs[1]).reshape(2, -1)
    if axis in padded and amounts[:, padded.index(axis)].any():
        raise Refused("it adds frames to the sequence, which is not streamed yet")
    return facts[:1]


def _picked(node: ir.Node, data: Fact, axis: int) -> Fact:
    time = frames_of(data)
    if time is None:
        return data
    indices = node.inputs[1]
    if axis == time:
        if tuple(constant(indices).reshape(-1)) == _LAST_INDICES and rank(indices) == 0:
            return Last()
        raise Refused("it picks single frames of the sequence")
    return Frames(time + rank(indices) - 1 if axis < time else time)


def _found(node: ir.Node, axis: int) -> int:
    """The time axis after a reshape: copied by a 0, or told by the shape."""
    sizes = node.inputs[1]
    tensor = None if sizes is None else ir.convenience.get_const_tensor(sizes)
    if tensor is not None and tuple(tensor.numpy().reshape(-1)[axis : axis + 1]) == (0,):
        return axis
    before, after = node.inputs[0], node.outputs[0]
    if before is None or before.shape is None or after.shape is None:
        raise Refused("its shape is not known")
    places = [i for i, dim in enumerate(after.shape) if str(dim) == str(before.shape[axis])]
    if len(places) != 1:
        raise Refused("it merges the time axis with another, or splits it")
    return places[0]


def _filled(data: Fact, sizes: Fact) -> Sequence[Fact]:
    """A wire without frames, laid out over sizes that may count frames."""
    if not isinstance(sizes, Length):
        return [data]
    if data is not None:
        raise Refused("it spreads the value at the end of the sequence over all frames")
    return _only_flag(sizes)


def _along(axes: int, behind: int, sizes: Length) -> Sequence[Fact]:
    """Frames that stay `behind` the last axis; another size that counts frames is a second time."""
    counting = [place - len(sizes.flags) for place, flag in enumerate(sizes.flags) if flag]
    if counting != [behind]:
        raise Refused("it lays the frames out along a second axis that counts frames")
    return [Frames(axes + behind)]


def _only_flag(sizes: Length) -> Sequence[Fact]:
    if sum(sizes.flags) != 1:
        raise Refused("it merges the time axis with another, or splits it")
    return [Frames(sizes.flags.index(True))]


def _length(flags: Sequence[bool]) -> Fact:
    return Length(tuple(flags)) if any(flags) else None


def _known(node: ir.Node, facts: list[Fact]) -> list[tuple[ir.Value, Fact]]:
    return [(v, f) for v, f in zip(node.inputs, facts, strict=True) if v is not None]


def _flags(value: ir.Value, fact: Fact) -> tuple[bool, ...]:
    if isinstance(fact, Length):
        return fact.flags
    if fact is not None or value.shape is None or not isinstance(value.shape[0], int):
        raise Refused("it joins sizes with something else")
    return (False,) * value.shape[0]


def _cut(node: ir.Node, flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[bool, ...]:
    start, end = (int(constant(node.inputs[i]).reshape(-1)[0]) for i in (1, 2))
    return tuple(bool(flag) for flag in flags[start:end])


def _to_the_end(node: ir.Node, place: int) -> bool:
    return bool(constant(node.inputs[2]).reshape(-1)[place] >= np.iinfo(np.int32).max)


RULES = {
    "Concat": concat,
    "ConstantOfShape": expand,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Pad": pad,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
