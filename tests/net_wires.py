"""Builds networks as ONNX graphs, wire by wire; no exporter is involved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MOST_FRAMES = 160
MOST_STRIDE = 12
FREE = {"b": "batch", "t": "time"}
END = 2**63 - 1

Draw = Callable[[Any], Any]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Wire:
    """A wire that holds frames.

    Attributes:
        name: its name in the graph.
        axes: a letter for each axis: batch, time, channels, features.
        sizes: the sizes of all axes but time, and but the batch where that is free.
        stride: input frames for one frame here.
        frames: how many frames there are here for 0, 1, 2, ... input frames.
    """

    name: str
    axes: str
    sizes: Mapping[str, int]
    stride: Fraction
    frames: tuple[int, ...] = field(repr=False)

    def at(self, letter: str) -> int:
        return self.axes.index(letter)


@dataclass
class Net:
    """A network that is being built.

    Attributes:
        rng: draws the weights.
        named: whether its nodes have names.
        usable: whether the network is defined for 0, 1, 2, ... input frames.
        states: the inputs that hold initial states.
    """

    rng: np.random.Generator
    named: bool = True
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    usable: npt.NDArray[np.bool_] = field(
        default_factory=lambda: np.arange(MOST_FRAMES) > 0  # no sequence is empty
    )

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """The nodes, a line each: hypothesis shows a failing network to people."""
        numbers = {w.name: numpy_helper.to_array(w) for w in self.weights}
        known = {name: x.tolist() if x.size < 7 else x.shape for name, x in numbers.items()}
        lines = [
            f"{node.output[0]} = {node.op_type}({[known.get(x, x) for x in node.input]}, "
            + ", ".join(helper.printable_attribute(a) for a in node.attribute if a.name != "body")
            for node in self.nodes
        ]
        inputs = [helper.printable_value_info(value) for value in self.inputs]
        printer.text("\n".join([*inputs, *lines, f"give {[o.name for o in self.outputs]}"]))

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """The first output of a new node; the others' names end in `.1`, `.2`, ..."""
        name = f"{op_type}{len(self.nodes)}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        label = name if self.named else ""
        self.nodes.append(helper.make_node(op_type, inputs, names, name=label, **attributes))
        return name

    def constant(self, values: Any, dtype: type = np.int64) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values)

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        """Normal numbers, small enough that values stay of one size from block to block."""
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self.rng.normal(0, scale / fan_in**0.5, shape), np.float32)

    def wire(
        self, name: str, like: Wire, axes: str, frames: Sequence[int] = (), **changes: Any
    ) -> Wire:
        """A wire that holds frames; it needs one at least."""
        sizes = dict(like.sizes) | {k: v for k, v in changes.items() if k in "bcf"}
        made = Wire(
            name,
            axes,
            {letter: size for letter, size in sizes.items() if letter in axes},
            changes.get("stride", like.stride),
            tuple(frames) or like.frames,
        )
        self.usable &= np.array(made.frames) > 0
        self.wires.append(made)
        return made

    def laid(self, x: Wire, axes: str) -> Wire:
        """The wire with these axes, in this order."""
        if "c" in x.axes and "c" not in axes:
            x = self._merged(x)
        missing = [letter for letter in axes if letter not in x.axes]
        if missing:
            name = self.op("Unsqueeze", x.name, self.ints(*range(len(missing))))
            sizes = dict(x.sizes) | dict.fromkeys(missing, 1)
            x = replace(x, name=name, axes="".join(missing) + x.axes, sizes=sizes)
        if x.axes != axes:
            perm = [x.at(letter) for letter in axes]
            x = replace(x, name=self.op("Transpose", x.name, perm=perm), axes=axes)
        return x

    def _merged(self, x: Wire) -> Wire:
        """The channels as features."""
        rest = "".join(letter for letter in x.axes if letter not in "cf")
        x = self.laid(x, rest + "cf")
        features = x.sizes["c"] * x.sizes["f"]
        name = self.op("Reshape", x.name, self.ints(*(0 for _ in rest), features))
        sizes = {k: v for k, v in x.sizes.items() if k != "c"} | {"f": features}
        return replace(x, name=name, axes=rest + "f", sizes=sizes)

    def size(self, x: Wire, letter: str) -> str:
        """The size of an axis, as a wire `[1]`."""
        if letter in x.sizes:
            return self.ints(x.sizes[letter])
        return self.op("Gather", self.op("Shape", x.name), self.ints(x.at(letter)), axis=0)

    def filled(self, x: Wire, letters: Mapping[str, int], content: str) -> str:
        """`content` laid out over the axes of `x`, some of them of other sizes."""
        sizes = [
            self.ints(letters[letter]) if letter in letters else self.size(x, letter)
            for letter in x.axes
        ]
        return self.op("Expand", content, self.op("Concat", *sizes, axis=0))

    def value(self, name: str, dims: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, dtype, dims)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "random", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def lengths(self) -> list[int]:
        """The numbers of input frames for which the network is defined."""
        return [int(n) for n in np.flatnonzero(self.usable)]


Block = Callable[[Net, Draw, Wire], Wire]


def whole(low: int, high: int) -> Any:
    return st.integers(low, high)


def one_of(*values: Any) -> Any:
    return st.sampled_from(values)


def slid(
    frames: Sequence[int], kernel: int, stride: int, padding: int, ceil: bool = False
) -> list[int]:
    """The lengths behind a window."""
    over = [n + padding - kernel for n in frames]
    return [
        0 if n < 1 or o < 0 else (o + (stride - 1) * ceil) // stride + 1
        for n, o in zip(frames, over, strict=True)
    ]


def stride_of(draw: Draw, x: Wire) -> int:
    stride: int = draw(one_of(1, 1, 2, 3))
    return stride if x.stride * stride <= MOST_STRIDE else 1
