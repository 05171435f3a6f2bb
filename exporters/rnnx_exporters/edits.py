"""What operators remember from call to call, and how their nodes change for it: one edit a class.

Every edit leans on `Memory.remember`: the frames that are still needed, and the new ones behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from rnnx_exporters.clock import Clock
from rnnx_exporters.memory import END, Memory
from rnnx_exporters.timeline import Frames, refuse

Size = int | tuple[ir.Node, int]


@dataclass(frozen=True, slots=True)
class Window:
    """An input of the node, the first by default, is read by a window of frames that moves over it.

    Attributes:
        node: a convolution, a pool, a slice, or padding.
        frames: the fact of its first input.
        kernel: how many frames the window spans.
        stride: how many frames it moves.
        left, right: how many frames of `fill` stand before the first and behind the last.
        fill: their content.
        place: which input it is.
        cut: how many frames at the end of the sequence it leaves out.
        finish: changes the node, once it reads what is remembered: given the memory and how many
            frames behind the last window are left for the next call.
    """

    node: ir.Node
    frames: Frames
    kernel: int
    finish: Callable[[Memory, ir.Node, int], None]
    stride: int = 1
    left: int = 0
    right: int = 0
    fill: float = 0.0
    place: int = 0
    cut: int = 0

    def keep(self, memory: Memory) -> int:
        """How many frames are left behind the last window for the next call."""
        return memory.count(self.frames.clock) + self.left - self.stride * memory.count(self.clock)

    @property
    def clock(self) -> Clock:
        """The clock behind it."""
        return self.frames.clock.without_end(self.cut).window(
            self.kernel, stride=self.stride, left=self.left, right=self.right
        )

    def apply(self, memory: Memory) -> None:
        """Give the window the frames it still needs."""
        keep = self.keep(memory)
        value = self.node.inputs[self.place]
        assert value is not None
        held = memory.remember(
            self.node,
            value,
            self.frames,
            start=self.left,
            keep=keep,
            fill=self.fill,
            masked=self.right > 0,
        )
        self.node.replace_input_with(self.place, held)
        self.finish(memory, self.node, keep)


@dataclass(frozen=True, slots=True)
class PartialMean:
    """A mean that leaves padding out: at the ends of the sequence it is over fewer frames.

    The window was filled by zeros and divides by all its frames, so the mean is divided by the
    share of them that are of the sequence.
    """

    window: Window

    @property
    def node(self) -> ir.Node:
        """The pool."""
        return self.window.node

    def apply(self, memory: Memory) -> None:
        """Pool the mask by the same window, and divide by it."""
        node, window = self.node, self.window
        out, axis = node.outputs[0], window.frames.axis
        users = tuple(out.uses())
        mask = memory.insert(node, "Cast", [memory.mask(window.frames.clock)], to=ir.DataType.FLOAT)
        share = memory.insert(node, "Reshape", [mask, memory.constant(1, 1, -1)])
        known = memory.remember(
            node, share, Frames(2), start=window.left, keep=window.keep(memory), dims=(1, 1, 0)
        )
        spatial = axis - 2
        one = {
            name: [node.attributes[name].as_ints()[spatial]]
            for name in ("kernel_shape", "strides", "dilations")
            if name in node.attributes
        }
        if window.kernel < window.stride and window.keep(memory):
            known = memory.cut(node, known, 2, end=-window.keep(memory))
        pooled = memory.insert(node, "AveragePool", [known], **one)
        laid = [1] * len(out.shape or ())
        laid[axis] = -1
        pooled = memory.insert(node, "Reshape", [pooled, memory.constant(*laid)])
        memory.redirect(users, out, memory.insert(node, "Div", [out, pooled]))


@dataclass(frozen=True, slots=True)
class Spread:
    """A transposed convolution: each frame spreads over `kernel` frames, `factor` apart.

    The frames that reach into the next call's are remembered as its inputs, not as sums, so that a
    bias is added once.

    Attributes:
        node: the convolution, its padding in time removed here.
        frames: the fact of its first input.
        spatial: the place of time among the spatial axes.
        left, right: how many frames are cut off at both ends; a negative number of them is added.
    """

    node: ir.Node
    frames: Frames
    spatial: int
    kernel: int
    factor: int
    left: int
    right: int

    @property
    def clock(self) -> Clock:
        """The clock behind it."""
        return self.frames.clock.upsampled(
            self.factor, kernel=self.kernel, left=self.left, right=self.right
        )

    def apply(self, memory: Memory) -> None:
        """Compute over what is remembered and cut out the frames that are complete."""
        node, axis = self.node, self.frames.axis
        value, out = node.inputs[0], node.outputs[0]
        assert value is not None
        before = -(-self.kernel // self.factor) - 1
        over = self.kernel - self.factor
        held = memory.remember(
            node, value, self.frames, start=before, keep=before, masked=over > self.right
        )
        node.replace_input_with(0, held)
        unpad(node, self.spatial)
        if over < 0:
            leave_gap(node, self.spatial, -over)
        users = tuple(out.uses())
        start, end = before * self.factor, -over if over > 0 else END
        whole = memory.cut(node, out, axis, start=start, end=end)
        waiting = max(0, self.right - over)
        if self.left or waiting:
            memory.alike(whole, out)
            ahead = memory.remember(node, whole, self.frames, start=0, keep=self.left + waiting)
            end = -waiting if waiting else END
            whole = memory.cut(node, ahead, axis, start=self.left, end=end)
        memory.redirect(users, out, whole)


@dataclass(frozen=True, slots=True)
class RunningSum:
    """CumSum: the sum so far is carried on."""

    node: ir.Node
    frames: Frames
    exclusive: bool

    def apply(self, memory: Memory) -> None:
        """Add the sum so far to every frame."""
        node, axis = self.node, self.frames.axis
        value, out = node.inputs[0], node.outputs[0]
        assert value is not None
        dims = [
            1 if place == axis else dim for place, dim in enumerate(memory.dims(value, self.frames))
        ]
        so_far, kept = memory.take(node, "sum", dims, memory.dtype(value))
        if memory.skip(self.frames.clock):
            value = memory.blanked(node, value, self.frames)
            node.replace_input_with(0, value)
        users = tuple(out.uses())
        total = memory.insert(node, "Add", [out, so_far])
        last = memory.cut(node, total, axis, start=-1)
        if self.exclusive:
            last = memory.insert(node, "Add", [last, memory.cut(node, value, axis, start=-1)])
        memory.give(kept, last)
        memory.redirect(users, out, total)


@dataclass(frozen=True, slots=True)
class Position:
    """Range over the frames: the place of a frame in the whole sequence."""

    node: ir.Node
    clock: Clock

    def apply(self, memory: Memory) -> None:
        """Add the number of frames that went before."""
        node, out = self.node, self.node.outputs[0]
        skip = -float(memory.skip(self.clock))
        before, kept = memory.take(node, "sum", (1,), memory.dtype(out), fill=skip)
        users = tuple(out.uses())
        place = memory.insert(node, "Add", [out, before])
        delta = node.inputs[2]
        following = memory.insert(node, "Add", [memory.cut(node, place, 0, start=-1), delta])
        origin = node.inputs[0]
        memory.give(kept, memory.insert(node, "Sub", [following, origin]))
        memory.redirect(users, out, place)


@dataclass(frozen=True, slots=True)
class Readout:
    """An output of the node is the value at the last frame of a wire.

    At the end of a sequence a call holds frames behind the last one, or none of the sequence at
    all: the value is then picked by the mask, or is what it was.

    Attributes:
        node: a slice, a gather, or a recurrent operator.
        frames: the fact of the wire.
        out: the node's output that holds the value.
        wire: the wire, if it is not the node's first input.
    """

    node: ir.Node
    frames: Frames
    out: ir.Value
    wire: ir.Value | None = None

    def apply(self, memory: Memory) -> None:
        """Pick the last frame of the sequence, or keep the value of the call before."""
        node, axis = self.node, self.frames.axis
        if not memory.ends or not (self.out.uses() or self.out.is_graph_output()):
            return
        if self.wire is not None and self.out is not node.outputs[1]:
            raise refuse(
                node,
                "its cell state is read when the sequence ends, after frames of padding",
                "Read the hidden state instead, or the last frame of its output.",
            )
        value = self.wire or node.inputs[0]
        assert value is not None
        dims = list(memory.dims(value, self.frames))
        dims[axis] = 1
        users = tuple(self.out.uses())
        before, kept = memory.take(node, "last", dims, memory.dtype(value))
        known = memory.insert(node, "Concat", [before, value], axis=axis)
        place = memory.last_place(node, self.frames.clock)
        last = read = memory.insert(node, "Gather", [known, place], axis=axis)
        if self.out.shape is not None and len(self.out.shape) < len(dims):
            read = memory.insert(node, "Squeeze", [last, memory.constant(axis)])
        memory.redirect(users, self.out, read)
        memory.give(kept, last)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that the node takes as its second input are computed from the chunk instead.

    Attributes:
        asked: finds for each axis a size, or a node and the axis of its first input that has it,
            given the memory and the node.
    """

    node: ir.Node
    asked: Callable[[Memory, ir.Node], Sequence[Size]]

    def apply(self, memory: Memory) -> None:
        """Give the node sizes that fit the chunk."""
        sizes = self.asked(memory, self.node)
        if all(isinstance(size, int) for size in sizes):
            fitting = memory.constant(*(size for size in sizes if isinstance(size, int)))
        else:
            parts = [self._size(memory, size) for size in sizes]
            fitting = memory.insert(self.node, "Concat", parts, axis=0)
        self.node.replace_input_with(1, fitting)
        self.node.attributes.pop("allowzero", None)  # 0 copies the size

    def _size(self, memory: Memory, size: Size) -> ir.Value:
        if isinstance(size, int):
            return memory.constant(size)
        node, axis = size
        return memory.insert(self.node, "Shape", node.inputs[:1], start=axis, end=axis + 1)


def unpad(node: ir.Node, spatial: int) -> None:
    """Take the padding of one spatial axis off a convolution or a pool."""
    for name in ("pads", "output_padding"):
        if name in node.attributes:
            amounts = list(node.attributes[name].as_ints())
            amounts[spatial] = 0
            if name == "pads":
                amounts[spatial + len(amounts) // 2] = 0
            node.attributes[name] = ir.AttrInt64s(name, amounts)


def leave_gap(node: ir.Node, spatial: int, gap: int) -> None:
    """Let a transposed convolution give the frames behind its last kernel, up to its next step."""
    longer = [0] * len(node.attributes["strides"].as_ints())
    if "output_padding" in node.attributes:
        longer = list(node.attributes["output_padding"].as_ints())
    longer[spatial] = gap
    node.attributes["output_padding"] = ir.AttrInt64s("output_padding", longer)
