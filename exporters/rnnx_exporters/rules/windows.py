"""Operators that see several frames at once: convolutions, pools, padding, pieces of the sequence.

Each is a `Window` over the frames (or, transposed, a `Spread`) that remembers what it still needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import onnx_ir as ir

from rnnx_exporters.edits import PartialMean, Spread, Window, unpad
from rnnx_exporters.memory import END, Memory
from rnnx_exporters.rules.reading import (
    FORWARD,
    TIME_IS_CHANNEL,
    TRANSPOSE,
    alone,
    axes_input,
    constant,
    flag,
    frames_of,
    ints,
    only_first,
    rank,
    size_of,
)
from rnnx_exporters.timeline import Fact, Frames, Planned, Refused

PLACES = "Leave frames off the start or the end (x[:, 2:], x[:, :-2]), or read the last (x[:, -1])."
_LEAST = float(np.finfo(np.float32).min)
_RESIZE_MODES = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
}
# The pairs of coordinates and rounding that repeat each frame by a whole factor.
_REPEATS = frozenset(
    {
        ("asymmetric", "floor"),
        *product(("half_pixel", "pytorch_half_pixel"), ("round_prefer_floor", "round_prefer_ceil")),
    }
)


@dataclass(frozen=True, slots=True)
class _Geometry:
    """A window along the spatial axis that is time."""

    kernel: int
    stride: int
    left: int
    right: int


def convolve(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Conv and LpPool: padded by zeros."""
    return _slide(node, facts, fill=0.0)


def max_pool(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """MaxPool: padded by what no maximum is."""
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        raise Refused(
            "it gives the places of its maxima, which count from the start of its input",
            "Leave them out of what the model returns: give the maxima themselves.",
        )
    return _slide(node, facts, fill=_LEAST)


def average_pool(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """AveragePool: padding is part of the mean, or the mean is over fewer frames at the ends."""
    time = frames_of(facts[0])
    if time is not None and flag(node, "ceil_mode"):
        raise Refused("ceil_mode takes the last mean over fewer frames", "Pool without ceil_mode.")
    planned = _slide(node, facts, fill=0.0)
    if not isinstance(planned, Planned) or flag(node, "count_include_pad"):
        return planned
    windows = [edit for edit in planned.edits if isinstance(edit, Window)]
    if not any(window.left or window.right for window in windows):
        return planned
    return replace(planned, edits=[*planned.edits, *map(PartialMean, windows)])


def transposed(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """ConvTranspose: each frame spreads over several."""
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames) or frames.axis == 0:
        return facts[:1]
    spatial = _spatial(frames)
    if "output_shape" in node.attributes:
        raise Refused("its padding depends on the length", "Give its pads as numbers.")
    found = _geometry(node, spatial)
    right = found.right - ints(node, "output_padding", [0] * _spatial_axes(node))[spatial]
    edit = Spread(node, frames, spatial, found.kernel, found.stride, found.left, right)
    return Planned([replace(frames, clock=edit.clock)], [edit])


def pad(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Pad: along features, or constant frames at the ends of the sequence."""
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    axes = rank(node.inputs[0])
    padded = axes_input(node, 3, axes) or list(range(axes))
    amounts = constant(node.inputs[1]).reshape(2, -1).astype(int)
    if frames.axis not in padded or not amounts[:, padded.index(frames.axis)].any():
        return facts[:1]
    if "mode" in node.attributes and node.attributes["mode"].as_string() != "constant":
        raise Refused(
            "it pads the sequence by its own frames, of which those at the end are not known yet",
            "Pad by zeros instead.",
        )
    alone(frames)
    left, right = (int(amount) for amount in amounts[:, padded.index(frames.axis)])
    amounts[:, padded.index(frames.axis)] = 0

    def finish(memory: Memory, node: ir.Node, _: int) -> None:
        node.replace_input_with(1, memory.constant(*(int(n) for n in amounts.reshape(-1))))

    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return lengthened(
        Window(
            node,
            frames,
            kernel=1,
            finish=finish,
            left=left,
            right=right,
            fill=0.0 if fill is None else float(constant(fill).reshape(())),
        )
    )


def lengthened(window: Window) -> Planned:
    """Frames are added to the sequence."""
    if min(window.left, window.right) < 0:
        raise Refused("it cuts frames off by a negative padding", "Slice the sequence instead.")
    return Planned([replace(window.frames, clock=window.clock)], [window])


def piece(node: ir.Node, frames: Frames, start: int, end: int, step: int) -> Planned:
    """Slice: the frames from `start` on, up to `end` from the last, each `step`th."""
    if step < 0:
        raise Refused("it turns the sequence, to be read backward from its end", FORWARD)
    if start < 0 or end > 0:
        raise Refused("it cuts out frames by their place in the whole sequence", PLACES)

    def finish(memory: Memory, node: ir.Node, keep: int) -> None:
        behind = keep + step - start - 1
        held, last = node.inputs[0], -behind if behind else END
        assert held is not None
        cut = memory.cut(node, held, frames.axis, start=start, end=last, step=step)
        node.replace_input_with(0, cut)
        _undo(node, memory, frames.axis)

    edit = Window(node, frames, start + 1, finish, stride=step, cut=-end)
    clock = edit.clock
    seen = start * frames.clock.stride
    first = None if clock.first is None else clock.first + seen
    clock = replace(clock, first=first, last=frames.clock.last + seen)
    return Planned([replace(frames, clock=clock)], [edit])


def stacked(node: ir.Node, frames: Frames, factor: int) -> Window:
    """A Reshape that makes one frame of `factor`."""
    cut = _uncovered(frames, factor, factor, exactly=True)
    return Window(node, frames, factor, cut, stride=factor)


def frame(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """STFT: a window over the samples, its spectrum a frame."""
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    if frames.axis != 1:
        raise Refused("time is not the axis of its samples")
    step = int(constant(node.inputs[1]).reshape(()))
    length = node.inputs[3] if len(node.inputs) > 3 else None
    kernel = int(constant(length).reshape(())) if length else size_of(node.inputs[2], 0)
    edit = Window(node, frames, kernel, _uncovered(frames, kernel, step), stride=step)
    return Planned([replace(frames, clock=edit.clock)], [edit])


def resize(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Resize: along features, or each frame a whole number of times."""
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    factor = _scale(node, frames.axis)
    if factor == 1:
        return facts[:1]
    modes = [
        node.attributes[name].as_string() if name in node.attributes else default
        for name, default in _RESIZE_MODES.items()
    ]
    if modes[0] != "nearest" or factor % 1 or tuple(modes[1:]) not in _REPEATS:
        raise Refused(
            "it interpolates between frames, or by other than a whole factor",
            "Repeat each frame a whole number of times: mode 'nearest', a whole scale_factor.",
        )
    return [replace(frames, clock=frames.clock.upsampled(int(factor), kernel=int(factor)))]


def _scale(node: ir.Node, axis: int) -> float:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise Refused("it resizes to a length", "Resize by a scale_factor instead.")
    axes = ints(node, "axes", range(rank(node.inputs[0])))
    places = [place for place, scaled in enumerate(axes) if scaled % rank(node.inputs[0]) == axis]
    scales = constant(node.inputs[2])
    return float(scales[places[0]]) if places else 1.0


def _slide(node: ir.Node, facts: list[Fact], fill: float) -> Planned | Sequence[Fact]:
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames) or frames.axis == 0:
        return facts[:1]
    spatial = _spatial(frames)
    found = _geometry(node, spatial)
    if (found.kernel, found.stride, found.left, found.right) == (1, 1, 0, 0):
        return facts[:1]
    cut = _uncovered(frames, found.kernel, found.stride, exactly=flag(node, "ceil_mode"))

    def finish(memory: Memory, node: ir.Node, keep: int) -> None:
        unpad(node, spatial)
        cut(memory, node, keep)

    edit = Window(
        node,
        frames,
        found.kernel,
        finish,
        stride=found.stride,
        left=found.left,
        right=found.right,
        fill=fill,
    )
    return Planned([replace(frames, clock=edit.clock)], [edit])


def _uncovered(
    frames: Frames, kernel: int, stride: int, *, exactly: bool = False
) -> Callable[[Memory, ir.Node, int], None]:
    """Cuts off the frames left for the next call, where a window could begin in them."""

    def finish(memory: Memory, node: ir.Node, keep: int) -> None:
        over = keep + stride - max(kernel, stride)
        held = node.inputs[0]
        assert held is not None
        if over and (exactly or kernel < stride):
            node.replace_input_with(0, memory.cut(node, held, frames.axis, end=-over))

    return finish


def _undo(node: ir.Node, memory: Memory, axis: int) -> None:
    """Let a Slice no longer cut along `axis`, which was done before."""
    table = [row for row in _cuts(node) if row[2] != axis]
    node.resize_inputs(5)
    for place, column in enumerate(zip(*table, (0, END, axis, 1), strict=True), start=1):
        node.replace_input_with(place, memory.constant(*map(int, column)))


def _cuts(node: ir.Node) -> list[tuple[int, ...]]:
    """Start, end, axis and step of every cut of a Slice; none where it cuts along one axis only."""
    count = constant(node.inputs[1]).size
    if count == 1:
        return []  # its end may be computed
    axes = axes_input(node, 3, rank(node.outputs[0])) or list(range(count))
    rows = [constant(value).reshape(-1).tolist() for value in node.inputs[1:3]]
    steps = constant(node.inputs[4]).reshape(-1).tolist() if len(node.inputs) > 4 else [1] * count
    return list(zip(*rows, axes, steps, strict=True))


def _spatial(frames: Frames) -> int:
    """The place of time among the spatial axes."""
    if frames.axis < 2:
        raise Refused(TIME_IS_CHANNEL, TRANSPOSE)
    return frames.axis - 2


def _geometry(node: ir.Node, spatial: int) -> _Geometry:
    count = _spatial_axes(node)
    kernel = (_kernel(node)[spatial] - 1) * ints(node, "dilations", [1] * count)[spatial] + 1
    stride = ints(node, "strides", [1] * count)[spatial]
    pads = ints(node, "pads", [0] * 2 * count)
    left, right = pads[spatial], pads[spatial + count]
    if "auto_pad" in node.attributes:
        mode = node.attributes["auto_pad"].as_string()
        if mode not in ("NOTSET", "VALID"):
            raise Refused(f"auto_pad {mode} depends on the length", "Give its pads as numbers.")
    if flag(node, "ceil_mode"):
        if right + stride > kernel:
            raise Refused("ceil_mode lets its last window begin behind the sequence")
        right += stride - 1
    return _Geometry(kernel, stride, left, right)


def _spatial_axes(node: ir.Node) -> int:
    return rank(node.inputs[0]) - 2


def _kernel(node: ir.Node) -> Sequence[int]:
    if "kernel_shape" in node.attributes:
        return node.attributes["kernel_shape"].as_ints()
    return [size_of(node.inputs[1], axis) for axis in range(2, rank(node.inputs[1]))]


RULES = {
    "AveragePool": average_pool,
    "Conv": convolve,
    "ConvTranspose": transposed,
    "LpPool": convolve,
    "MaxPool": max_pool,
    "Pad": pad,
    "Resize": resize,
    "STFT": frame,
}
