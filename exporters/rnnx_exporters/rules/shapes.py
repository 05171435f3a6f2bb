"""Operators that move, cut and join axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
import onnx_ir as ir

from rnnx_exporters.edits import Readout, Size, Sizes, Window
from rnnx_exporters.memory import Memory
from rnnx_exporters.rules import sizes as counted
from rnnx_exporters.rules.reading import (
    LENGTH_UNKNOWN,
    alone,
    axes_input,
    axis_attribute,
    constant,
    frames_of,
    no_mixing,
    only_first,
    rank,
    size_of,
)
from rnnx_exporters.rules.regrouping import regroup, regrouped
from rnnx_exporters.rules.windows import PLACES, lengthened, piece
from rnnx_exporters.timeline import Fact, Frames, Last, Length, Planned, Refused, Rows
from rnnx_runtime.contract import Dims

_MERGES = "it merges the time axis with another, or splits it"
_KEEP_TIME = "Merge features alone, or time with the batch alone: reshape to [batch, time, ...]."
_Asked = Callable[[Memory, ir.Node], Sequence[Size]]
_MANY = 1 << 24
_INT32_MAX = np.iinfo(np.int32).max
_ZERO = ir.tensor([0.0])


def transpose(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Transpose: the axis moves."""
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    if "perm" in node.attributes:
        return [replace(frames, axis=list(node.attributes["perm"].as_ints()).index(frames.axis))]
    return [replace(frames, axis=rank(node.inputs[0]) - 1 - frames.axis)]


def squeeze(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Squeeze: axes of size 1 go."""
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    axes = axes_input(node, 1, rank(node.inputs[0]))
    if not axes or frames.axis in axes:
        raise Refused("it removes the time axis", "Name the axes to squeeze.")
    return [replace(frames, axis=frames.axis - sum(gone < frames.axis for gone in axes))]


def unsqueeze(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Unsqueeze: axes of size 1 come."""
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    axis = frames.axis
    for new in sorted(axes_input(node, 1, rank(node.outputs[0]))):
        axis += new <= axis
    return [replace(frames, axis=axis)]


def reshape(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Reshape: time must stay an axis of its own, or be merged with the batch axis alone."""
    frames = facts[0]
    if isinstance(frames, Length):
        return facts[:1]
    if not isinstance(frames, Frames):
        return counted.laid_out(frames, facts[1] if len(facts) > 1 else None)
    factor = regrouped(node, frames)
    if factor is not None:
        return regroup(node, frames, factor)
    found, sizes = _reshaped(node, frames, facts[1])
    # Sizes that do not depend on the frames fit every chunk.
    edits = [Sizes(node, sizes)] if isinstance(facts[1], Length) else []
    return Planned([found], edits)


def flatten(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Flatten: time survives as the first axis alone."""
    at = axis_attribute(node, "axis", 1, rank(node.inputs[0]))
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    if frames.axis != 0 or at != 1:
        raise Refused(_MERGES, _KEEP_TIME)
    return facts[:1]


def concat(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Concat: along features, or constant frames at the ends of the sequence."""
    if any(isinstance(fact, Length) for fact in facts):
        return counted.joined(node, facts)
    no_mixing(facts)
    times = {frames_of(fact) for fact in facts} - {None}
    if not times:
        return [Last()]
    axis = axis_attribute(node, "axis", 0, rank(node.outputs[0]))
    if axis in times:
        return _with_ends(node, facts, axis)
    if len(times) != 1 or any(fact is None for fact in facts):
        raise Refused("one of its inputs has a fixed length along time")
    return facts[:1]


def split(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Split: along features."""
    only_first(facts)
    if frames_of(facts[0]) == axis_attribute(node, "axis", 0, rank(node.inputs[0])):
        raise Refused("it cuts the sequence in pieces", PLACES)
    return facts[:1]


def slice_(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Slice: along features, the last frame alone, or the sequence without some at its ends."""
    frames = facts[0]
    if isinstance(frames, Length):
        return counted.cut(node, frames)
    axes = axes_input(node, 3, rank(node.inputs[0])) or list(range(rank(node.inputs[0])))
    if isinstance(frames, Frames) and axes == [frames.axis] and isinstance(facts[2], Length):
        return _up_to(node, frames, facts[2])
    only_first(facts)
    if not isinstance(frames, Frames) or frames.axis not in axes:
        return facts[:1]
    alone(frames)
    place = axes.index(frames.axis)
    start, end = (int(constant(node.inputs[i]).reshape(-1)[place]) for i in (1, 2))
    step = int(constant(node.inputs[4]).reshape(-1)[place]) if len(node.inputs) > 4 else 1
    if (start, step) == (-1, 1) and end >= _INT32_MAX:
        return Planned([Last()], [Readout(node, frames, node.outputs[0])])
    if (start, step) == (0, 1) and end >= _INT32_MAX:
        return facts[:1]
    if 0 <= end < _INT32_MAX:
        raise Refused("it cuts out frames by their place in the whole sequence", PLACES)
    return piece(node, frames, start, 0 if end > 0 else end, step)


def _up_to(node: ir.Node, frames: Frames, limit: Length) -> Planned:
    """Slice: as many frames as another wire holds, or so many more."""
    alone(frames)
    start, step = (int(constant(node.inputs[i]).reshape(-1)[0]) for i in (1, 4))
    left = _difference(frames, limit)
    if left is None:
        raise Refused(LENGTH_UNKNOWN, PLACES)
    return piece(node, frames, start, -max(0, left), step)


def _difference(frames: Frames, limit: Length) -> int | None:
    """How many frames more there are than a count says, if that is one number."""
    if limit.clock is None:
        return None
    counted_to = limit.clock.length.then(addend=limit.plus)
    left = frames.clock.length(_MANY) - counted_to(_MANY)
    return left if counted_to.then(addend=left) == frames.clock.length else None


def gather(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Gather: a table looked up by frames, features picked, or the last frame taken."""
    data, indices = facts[0], facts[1]
    axis = axis_attribute(node, "axis", 0, rank(node.inputs[0]))
    if isinstance(data, Length):
        return counted.picked(node, data)
    if data is None:
        if not isinstance(indices, Frames):
            return [indices]
        return [replace(indices, axis=axis + indices.axis)]
    if indices is not None:
        raise Refused("it picks frames by an index that depends on the frames")
    if not isinstance(data, Frames):
        return [data]
    if axis != data.axis:
        moved = rank(node.inputs[1]) - 1 if axis < data.axis else 0
        return [replace(data, axis=data.axis + moved)]
    alone(data)
    if constant(node.inputs[1]).tolist() == 0 and _gives_sizes_only(node):
        return [None]
    if constant(node.inputs[1]).reshape(-1).tolist() != [-1]:
        raise Refused("it picks single frames of the sequence", PLACES)
    return Planned([Last()], [Readout(node, data, node.outputs[0])])


def _gives_sizes_only(node: ir.Node) -> bool:
    """Whether nothing of its result but the shape is read."""
    out = node.outputs[0]
    return not out.is_graph_output() and all(u.op_type == "Shape" for u, _ in out.uses())


def _reshaped(node: ir.Node, frames: Frames, asked: Fact) -> tuple[Frames, _Asked]:
    """The fact behind a reshape, and the sizes that it asks for in a stream."""
    if frames.rows is not None:
        kept = _kept_rows(node)
        return (
            (frames, lambda memory, node: kept) if kept else _split_rows(node, frames, frames.rows)
        )
    axis = _counted_axis(node, frames, asked)
    axis = _kept_axis(node, frames) if axis is None else axis
    if axis is None:
        return _merge_rows(node, frames)
    return replace(frames, axis=axis), partial(_sizes, frames, axis)


def _counted_axis(node: ir.Node, frames: Frames, asked: Fact) -> int | None:
    """The axis whose size was computed by counting the frames, if no other was moved over it."""
    before, after = node.inputs[0], node.outputs[0]
    if not isinstance(asked, Length) or asked.clock is None or before is None:
        return None
    if before.shape is None or after.shape is None or sum(asked.flags) != 1 or asked.plus:
        return None
    place = asked.flags.index(True)
    if _elements(before.shape[: frames.axis]) != _elements(after.shape[:place]):
        return None
    return place if asked.clock.length == frames.clock.length else None


def _kept_axis(node: ir.Node, frames: Frames) -> int | None:
    """The time axis after a reshape, by the sizes before and after it; None if it is merged."""
    before, after = node.inputs[0], node.outputs[0]
    sizes = node.inputs[1]
    tensor = None if sizes is None else ir.convenience.get_const_tensor(sizes)
    asked = [] if tensor is None else tensor.numpy().reshape(-1).tolist()
    if asked[frames.axis : frames.axis + 1] == [0]:
        return frames.axis
    if before is None or before.shape is None or after.shape is None:
        raise Refused("its shape is not known")
    time = str(before.shape[frames.axis])
    places = [axis for axis, dim in enumerate(after.shape) if str(dim) == time]
    if len(places) > 1:
        raise Refused(_MERGES, _KEEP_TIME)
    return places[0] if places else _place_of_free(node, frames, asked)


def _place_of_free(node: ir.Node, frames: Frames, asked: list[int]) -> int | None:
    """Where sizes are numbers, time is what -1 stands for if all others are accounted for."""
    before, after = node.inputs[0], node.outputs[0]
    if before is None or before.shape is None or after.shape is None or asked.count(-1) != 1:
        return None
    place = asked.index(-1)
    ahead = [dim for dim in before.shape[: frames.axis] if dim != 1]
    kept = [dim for dim, size in zip(after.shape, asked, strict=True) if size != -1 and dim != 1]
    others = [dim for axis, dim in enumerate(before.shape) if axis != frames.axis]
    fixed = [dim for dim in others if isinstance(dim, int)]
    same = len(fixed) == len(others) and prod(fixed) == prod(d for d in kept if isinstance(d, int))
    return place if same and len(ahead) == len([d for d in after.shape[:place] if d != 1]) else None


def _sizes(frames: Frames, axis: int, memory: Memory, node: ir.Node) -> list[Size]:
    """The sizes of the reshaped wire: that of the batch copied, the time left to be found."""
    before, after = node.inputs[0], node.outputs[0]
    assert before is not None
    source = memory.dims(before, frames)
    dims = memory.dims(after, replace(frames, axis=axis))
    sizes = [_copied(node, source, dim, place) for place, dim in enumerate(dims)]
    if -1 in sizes[:axis] + sizes[axis + 1 :]:  # the batch is merged with another axis, or no more
        return [*sizes[:axis], (node, frames.axis), *sizes[axis + 1 :]]
    return [*sizes[:axis], -1, *sizes[axis + 1 :]]


def _copied(node: ir.Node, source: Dims, dim: int | str, place: int) -> Size:
    if isinstance(dim, int):
        return dim
    if dim not in source:
        return -1
    found = source.index(dim)
    return 0 if found == place else (node, found)


def _merge_rows(node: ir.Node, frames: Frames) -> tuple[Frames, _Asked]:
    """`[batch, time, ...]` as rows `[batch * time, ...]`, or the like with time first."""
    before, after = node.inputs[0], node.outputs[0]
    assert before is not None
    assert before.shape is not None
    assert after.shape is not None
    rest = [dim for dim in after.shape[1:] if isinstance(dim, int)]
    kept = [dim for dim in before.shape[2:] if isinstance(dim, int)]
    whole = len(rest) == rank(after) - 1 and len(kept) == rank(before) - 2
    if frames.axis > 1 or not whole or prod(rest) != prod(kept):
        raise Refused(_MERGES, _KEEP_TIME)
    return replace(frames, axis=0, rows=Rows(node, frames.axis)), lambda memory, node: (-1, *rest)


def _kept_rows(node: ir.Node) -> list[Size]:
    """The sizes of rows that stay rows, what they hold laid out otherwise; none if they do not."""
    before, after = node.inputs[0], node.outputs[0]
    if before is None or before.shape is None or after.shape is None:
        return []
    rest = [dim for dim in after.shape[1:] if isinstance(dim, int)]
    same = isinstance(before.shape[0], ir.SymbolicDim) and before.shape[0] == after.shape[0]
    return [-1, *rest] if same and len(rest) == rank(after) - 1 else []


def _split_rows(node: ir.Node, frames: Frames, rows: Rows) -> tuple[Frames, _Asked]:
    """Rows `[batch * time, ...]` as `[batch, time, ...]` again, or the like with time first."""
    after = node.outputs[0]
    assert after.shape is not None
    rest = [dim for dim in after.shape[2:] if isinstance(dim, int)]
    per_row = tuple(node.inputs[0].shape or ())[1:] if node.inputs[0] else ()
    if len(rest) != rank(after) - 2 or frames.axis != 0 or _elements(rest) != _elements(per_row):
        raise Refused(_MERGES, _KEEP_TIME)
    if isinstance(after.shape[rows.time], int):
        raise Refused(_MERGES, _KEEP_TIME)
    sizes: list[Size] = [(rows.node, 0), (rows.node, 1), *rest]
    return Frames(rows.time, frames.clock), lambda memory, node: sizes


def _elements(dims: Sequence[int | ir.SymbolicDim]) -> tuple[int, int]:
    """How many of the sizes are free, and the product of the others."""
    fixed = [dim for dim in dims if isinstance(dim, int)]
    return len(dims) - len(fixed), prod(fixed)


def _with_ends(node: ir.Node, facts: list[Fact], axis: int) -> Planned:
    """Constant frames before or behind the sequence."""
    framed = [place for place, fact in enumerate(facts) if isinstance(fact, Frames)]
    if len(framed) != 1 or any(fact is not None for p, fact in enumerate(facts) if p not in framed):
        raise Refused("it puts one sequence behind another", "Join them along features.")
    place, frames = framed[0], facts[framed[0]]
    assert isinstance(frames, Frames)
    alone(frames)
    left = sum(size_of(value, axis) for value in node.inputs[:place])
    right = sum(size_of(value, axis) for value in node.inputs[place + 1 :])
    fills = {_uniform(value) for p, value in enumerate(node.inputs) if p != place}
    if len(fills) != 1:
        raise Refused("the frames that it adds are not all alike", "Add frames of zeros.")

    def finish(_: Memory, node: ir.Node, __: int) -> None:
        held = node.inputs[place]
        node.resize_inputs(1)
        node.replace_input_with(0, held)

    fill = fills.pop()
    return lengthened(Window(node, frames, 1, finish, 1, left, right, fill, place))


def _uniform(value: ir.Value | None) -> float:
    """The number that a constant is full of."""
    if value is None:
        raise Refused("the frames that it adds are computed", "Add frames of zeros.")
    content = ir.convenience.get_const_tensor(value)
    node = value.producer()
    if content is None and node is not None and node.op_type == "ConstantOfShape":
        content = node.attributes["value"].as_tensor() if "value" in node.attributes else _ZERO
    if content is None and node is not None:
        return _uniform(_content(node))
    numbers = np.unique(constant(value) if content is None else content.numpy())
    if len(numbers) != 1:
        raise Refused("the frames that it adds are not all alike", "Add frames of zeros.")
    return float(numbers[0])


def _content(node: ir.Node) -> ir.Value | None:
    """The input that fills the output of a node that only lays it out."""
    if node.op_type not in ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        raise Refused("the frames that it adds are computed", "Add frames of zeros.")
    return node.inputs[0]


RULES = {
    "Concat": concat,
    "Flatten": flatten,
    "Gather": gather,
    "Reshape": reshape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
