"""Random networks as ONNX graphs, made of the blocks that recurrent networks are made of.

No exporter is involved, so a network costs milliseconds. Each wire knows its axes and how many
frames it holds for so many input frames, by arithmetic of its own: `Net.usable` says for which
lengths the network is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MOST_FRAMES = 160
MOST_STRIDE = 12
STEPS = {"RNN": 1, "GRU": 3, "LSTM": 4}
FREE = {"b": "batch", "t": "time"}
_END = 2**63 - 1

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
    frames: tuple[int, ...]

    def at(self, letter: str) -> int:
        return self.axes.index(letter)


@dataclass
class Net:
    """A network that is being built.

    Attributes:
        rng: draws the weights.
        usable: whether the network is defined for 0, 1, 2, ... input frames.
        states: the inputs that hold initial states.
    """

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    usable: npt.NDArray[np.bool_] = field(
        default_factory=lambda: np.arange(MOST_FRAMES) > 0  # no sequence is empty
    )

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """The first output of a new node; the others' names end in `.1`, `.2`, ..."""
        name = f"{op_type}{len(self.nodes)}"
        names = [name, *(f"{name}.{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
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


# Windows


def conv(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    features = x.sizes["f"]
    kernel, stride = draw(whole(1, 5)), stride_of(draw, x)
    dilation = draw(whole(1, 3)) if kernel > 1 else 1
    span = (kernel - 1) * dilation + 1
    left, right = draw(whole(0, span)), draw(whole(0, span))
    group = draw(one_of(*(n for n in (1, 2, 3, features) if features % n == 0)))
    out = group * draw(whole(1, 2))
    parameters = [net.weight(out, features // group, kernel)]
    parameters += [net.weight(out)] if draw(st.booleans()) else []
    name = net.op(
        "Conv",
        x.name,
        *parameters,
        pads=[left, right],
        strides=[stride],
        dilations=[dilation],
        group=group,
    )
    frames = slid(x.frames, span, stride, left + right)
    return net.wire(name, x, "bft", frames, f=out, stride=x.stride * stride)


def conv2d(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bctf")
    channels, features = x.sizes["c"], x.sizes["f"]
    kernel, stride = draw(whole(1, 4)), stride_of(draw, x)
    left, right = draw(whole(0, kernel)), draw(whole(0, kernel))
    wide = draw(whole(1, min(3, features)))
    across = draw(whole(1, 2))
    below, above = draw(whole(0, 1)), draw(whole(0, 1))
    out = draw(whole(1, 3))
    name = net.op(
        "Conv",
        x.name,
        net.weight(out, channels, kernel, wide),
        net.weight(out),
        pads=[left, below, right, above],
        strides=[stride, across],
    )
    frames = slid(x.frames, kernel, stride, left + right)
    other = slid([features], wide, across, below + above)[0]
    return net.wire(name, x, "bctf", frames, c=out, f=other, stride=x.stride * stride)


def pool(net: Net, draw: Draw, x: Wire) -> Wire:
    kind = draw(one_of("MaxPool", "AveragePool", "LpPool"))
    kernel, stride = draw(whole(1, 4)), stride_of(draw, x)
    dilation = 1 if kind == "AveragePool" else draw(whole(1, 2))
    span = (kernel - 1) * dilation + 1
    left, right = draw(whole(0, kernel - 1)), draw(whole(0, kernel - 1))
    ceil = kind == "MaxPool" and draw(st.booleans()) and right + stride <= span
    options: dict[str, Any] = {"ceil_mode": 1} if ceil else {}
    if kind != "AveragePool":
        options["dilations"] = [dilation]
    elif draw(st.booleans()):
        options["count_include_pad"] = 1
    axes = draw(one_of("bft", "bctf"))
    x = net.laid(x, axes)
    if axes == "bctf":  # of two features, say
        wide = draw(whole(1, min(2, x.sizes["f"])))
        options |= {"kernel_shape": [kernel, wide], "strides": [stride, wide]}
        options |= {"pads": [left, 0, right, 0]}
        options |= {"dilations": [dilation, 1]} if "dilations" in options else {}
        features = slid([x.sizes["f"]], wide, wide, 0, ceil)[0]
    else:
        options |= {"kernel_shape": [kernel], "strides": [stride], "pads": [left, right]}
        features = x.sizes["f"]
    name = net.op(kind, x.name, **options)
    frames = slid(x.frames, span, stride, left + right, ceil)
    return net.wire(name, x, axes, frames, f=features, stride=x.stride * stride)


def conv_transpose(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    kernel, stride = draw(whole(1, 5)), draw(one_of(2, 3, 1))
    dilation = draw(whole(1, 2))
    span = (kernel - 1) * dilation + 1
    left, right = draw(whole(0, span - 1)), draw(whole(0, span - 1))
    longer = draw(whole(0, stride - 1))
    features, out = x.sizes["f"], draw(whole(1, 4))
    name = net.op(
        "ConvTranspose",
        x.name,
        net.weight(features, out, kernel),
        net.weight(out),
        pads=[left, right],
        strides=[stride],
        dilations=[dilation],
        output_padding=[longer],
    )
    frames = [max(0, (n - 1) * stride + span + longer - left - right) for n in x.frames]
    return net.wire(name, x, "bft", frames, f=out, stride=x.stride / stride)


def upsample(net: Net, draw: Draw, x: Wire) -> Wire:
    return repeated(net, draw, x, draw(whole(2, 3)))


def repeated(net: Net, draw: Draw, x: Wire, factor: int) -> Wire:
    """Each frame so many times."""
    x = net.laid(x, "bft")
    scales = net.constant([1, 1, factor], np.float32)
    mode = draw(one_of(("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")))
    name = net.op(
        "Resize",
        x.name,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode=mode[0],
        nearest_mode=mode[1],
    )
    frames = [n * factor for n in x.frames]
    return net.wire(name, x, "bft", frames, stride=x.stride / factor)


def pad(net: Net, draw: Draw, x: Wire) -> Wire:
    return padded(net, x, draw(whole(0, 3)), draw(whole(0, 3)), draw(one_of(0.0, 0.5)))


def padded(net: Net, x: Wire, left: int, right: int, fill: float = 0.0) -> Wire:
    amounts = [left * (letter == "t") for letter in x.axes]
    amounts += [right * (letter == "t") for letter in x.axes]
    name = net.op("Pad", x.name, net.ints(*amounts), net.constant(fill, np.float32))
    return net.wire(name, x, x.axes, [n + left + right for n in x.frames])


def slice_(net: Net, draw: Draw, x: Wire) -> Wire:
    step = stride_of(draw, x)
    return cut(net, x, draw(whole(0, 3)), draw(whole(0, 3)), step)


def cut(net: Net, x: Wire, start: int, end: int, step: int = 1) -> Wire:
    """`x[:, start:-end:step]`."""
    numbers = (start, -end if end else _END, x.at("t"), step)
    name = net.op("Slice", x.name, *(net.ints(n) for n in numbers))
    frames = [max(0, -(-(n - start - end) // step)) for n in x.frames]
    return net.wire(name, x, x.axes, frames, stride=x.stride * step)


def shifted(net: Net, draw: Draw, x: Wire) -> Wire:
    """Each frame late, or early, by some: zeros joined to the end, the other end cut off."""
    by = draw(whole(1, 3))
    late = draw(st.booleans())
    rest = cut(net, x, *((0, by) if late else (by, 0)))
    zeros = net.filled(x, {"t": by}, net.constant([0], np.float32))
    parts = [zeros, rest.name] if late else [rest.name, zeros]
    name = net.op("Concat", *parts, axis=x.at("t"))
    return net.wire(name, x, x.axes)


def delta(net: Net, draw: Draw, x: Wire) -> Wire:
    return net.wire(net.op("Sub", x.name, shifted(net, draw, x).name), x, x.axes)


def context(net: Net, draw: Draw, x: Wire) -> Wire:
    """Some frames before and after each, beside it as features."""
    before, after = draw(whole(0, 3)), draw(whole(0, 3))
    over = padded(net, x, before, after)
    span = before + after
    parts = [cut(net, over, i, span - i).name for i in range(span + 1)]
    name = net.op("Concat", *parts, axis=x.at("f"))
    return net.wire(name, x, x.axes, f=x.sizes["f"] * (span + 1))


def spectrum(net: Net, draw: Draw, x: Wire) -> Wire:
    """STFT of one feature, the real and the imaginary parts as features."""
    x = net.laid(linear(net, draw, x, out=1), "btf")
    kernel, step = draw(one_of(2, 4, 5)), stride_of(draw, x)
    window = net.constant(np.hanning(kernel + 2)[1:-1], np.float32)
    name = net.op("STFT", x.name, net.constant(step), window, onesided=1)
    bins = kernel // 2 + 1
    flat = net.op("Reshape", name, net.ints(0, 0, 2 * bins))
    frames = slid(x.frames, kernel, step, 0)
    return net.wire(flat, x, "btf", frames, f=2 * bins, stride=x.stride * step)


# Memory


def recurrent(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "tbf")
    kind, size = draw(one_of(*STEPS)), draw(whole(1, 4))
    gates = STEPS[kind] * size
    parameters = [
        net.weight(1, gates, x.sizes["f"]),
        net.weight(1, gates, size),
        net.weight(1, 2 * gates),
    ]
    states = 2 if kind == "LSTM" else 1
    parameters += ["", *(initial(net, draw, x, size) for _ in range(states))]
    options = {"linear_before_reset": draw(whole(0, 1))} if kind == "GRU" else {}
    name = net.op(kind, x.name, *parameters, outputs=2, hidden_size=size, **options)
    if draw(whole(0, 3)) == 0:
        last = net.op("Squeeze", f"{name}.1", net.ints(0))  # the hidden state, not that of the cell
        net.outputs.append(net.value(last, [x.sizes.get("b", "batch"), size]))
    return net.wire(net.op("Squeeze", name, net.ints(1)), x, "tbf", f=size)


def initial(net: Net, draw: Draw, x: Wire, size: int) -> str:
    """No state, one that was trained, or an input of the graph; `[1, batch, size]`."""
    kind = draw(one_of("none", "trained", "input"))
    if kind == "none":
        return ""
    if kind == "input":
        name = f"h{len(net.inputs)}"
        net.inputs.append(net.value(name, [1, x.sizes.get("b", "batch"), size]))
        return name
    sizes = [net.ints(1), net.size(x, "b"), net.ints(size)]
    trained = net.constant(net.rng.normal(size=(1, 1, size)), np.float32)
    return net.op("Expand", trained, net.op("Concat", *sizes, axis=0))


def scan(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "tbf")
    features = x.sizes["f"]
    nodes = [
        helper.make_node("MatMul", ["h", "R"], ["hr"]),
        helper.make_node("Add", ["xt", "hr"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Identity", ["next"], ["frame"]),
    ]
    weights = [numpy_helper.from_array(_float32(net.rng, features, features), "R")]
    if draw(st.booleans()):  # a mean that forgets
        texts = (("h", "keep", "kept"), ("xt", "take", "taken"), ("kept", "taken", "next"))
        nodes = [
            helper.make_node("Add" if i == 2 else "Mul", [a, b], [c])
            for i, (a, b, c) in enumerate(texts)
        ] + nodes[-1:]
        weights = [
            numpy_helper.from_array(np.array(number, np.float32), name)
            for name, number in (("keep", 0.8), ("take", 0.2))
        ]
    names = ("h", "xt", "next", "frame")
    dims = [x.sizes.get("b", "batch"), features]
    values = [net.value(name, dims) for name in names]
    body = helper.make_graph(nodes, "body", values[:2], values[2:], weights)
    first = net.op(
        "Expand",
        net.constant(0 if draw(st.booleans()) else 0.3, np.float32),
        net.op("Concat", net.size(x, "b"), net.ints(features), axis=0),
    )
    name = net.op("Scan", first, x.name, outputs=2, body=body, num_scan_inputs=1)
    return net.wire(f"{name}.1", x, "tbf")


def _float32(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.normal(size=shape) / shape[-1] ** 0.5).astype(np.float32)


def running_sum(net: Net, draw: Draw, x: Wire) -> Wire:
    axis = draw(one_of(x.at("t"), x.at("t") - len(x.axes)))
    name = net.op("CumSum", x.name, net.constant(axis), exclusive=draw(whole(0, 1)))
    scaled = net.op("Mul", name, net.constant(0.1, np.float32))
    return net.wire(scaled, x, x.axes)


def running_mean(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, draw(one_of("btf", "tbf", "bft")))
    total = net.op("CumSum", x.name, net.constant(x.at("t")))
    return net.wire(net.op("Div", total, places(net, x, 1)), x, x.axes)


def positions(net: Net, draw: Draw, x: Wire) -> Wire:
    wave = net.op("Sin", net.op("Mul", places(net, x, 0), net.constant(0.3, np.float32)))
    return net.wire(net.op("Add", x.name, wave), x, x.axes)


def places(net: Net, x: Wire, first: int) -> str:
    """The place of each frame, counted from `first`, laid out so that `x` can meet it."""
    count = net.op("Squeeze", net.size(x, "t"), net.ints(0))
    limit = net.op("Add", count, net.constant(first)) if first else count
    numbers = net.op("Range", net.constant(first), limit, net.constant(1))
    behind = len(x.axes) - 1 - x.at("t")
    laid = net.op("Unsqueeze", numbers, net.ints(*range(1, 1 + behind))) if behind else numbers
    return net.op("Cast", laid, to=TensorProto.FLOAT)


# Frame by frame


def linear(net: Net, draw: Draw, x: Wire, out: int = 0) -> Wire:
    out = out or draw(whole(1, 5))
    kind = draw(one_of("MatMul", "left", "Einsum", "rows", "Conv"))
    features = x.sizes["f"] * x.sizes.get("c", 1)
    if kind == "rows":
        return rows(net, draw, x, out)
    if kind == "left":
        x = net.laid(x, "bft")
        return net.wire(net.op("MatMul", net.weight(out, features), x.name), x, "bft", f=out)
    if kind == "Conv":
        x = net.laid(x, "bft")
        return net.wire(net.op("Conv", x.name, net.weight(out, features, 1)), x, "bft", f=out)
    x = net.laid(x, draw(one_of("btf", "tbf")))
    w = net.constant(_float32(net.rng, out, features).T, np.float32)
    if kind == "MatMul":
        return net.wire(net.op("MatMul", x.name, w), x, x.axes, f=out)
    left, right = x.axes, x.axes.replace("f", "g")
    equation = draw(one_of(f"{left},fg->{right}", f"{left}, fg -> btg", "...f,fg->...g"))
    axes = "btf" if "-> btg" in equation else x.axes
    return net.wire(net.op("Einsum", x.name, w, equation=equation), x, axes, f=out)


def rows(net: Net, draw: Draw, x: Wire, out: int) -> Wire:
    """Batch and time merged for a Gemm, and split again."""
    x = net.laid(x, draw(one_of("btf", "tbf")))
    features = x.sizes["f"]
    sizes = [*(net.size(x, letter) for letter in x.axes[:2]), net.ints(out)]
    merged = net.op("Reshape", x.name, net.ints(-1, features))
    w = net.constant(_float32(net.rng, out, features), np.float32)
    product = net.op("Relu", net.op("Gemm", merged, w, net.weight(out), transB=1))
    back = net.op("Concat", *sizes, axis=0)
    return net.wire(net.op("Reshape", product, back), x, x.axes, f=out)


def activation(net: Net, draw: Draw, x: Wire) -> Wire:
    return net.wire(net.op(draw(one_of("Relu", "Tanh", "Sigmoid", "Elu")), x.name), x, x.axes)


def products(net: Net, draw: Draw, x: Wire) -> Wire:
    """The product of every two features of a frame."""
    if x.sizes["f"] * x.sizes.get("c", 1) > 8:
        return x
    x = net.laid(x, "btf")
    y = net.laid(linear(net, draw, x, out=2), "btf")
    equation = draw(one_of("btf,btg->btfg", "...f,...g->...fg", "...f,...g"))
    name = net.op("Einsum", x.name, y.name, equation=equation)
    sizes = [net.size(x, "b"), net.size(x, "t"), net.ints(-1)]
    flat = net.op("Reshape", name, net.op("Concat", *sizes, axis=0))
    return net.wire(flat, x, "btf", f=2 * x.sizes["f"])


def regrouped(net: Net, draw: Draw, x: Wire) -> Wire:
    """Features in two groups, one of them left."""
    x = net.laid(x, draw(one_of("btf", "tbf")))
    features = x.sizes["f"]
    if features % 2:
        return x
    sizes = [*(net.size(x, letter) for letter in x.axes[:2]), net.ints(2, features // 2)]
    groups = net.op("Reshape", x.name, net.op("Concat", *sizes, axis=0))
    kept = net.op("Gather", groups, net.constant(draw(whole(0, 1))), axis=2)
    return net.wire(kept, x, x.axes, f=features // 2)


def parted(net: Net, draw: Draw, x: Wire) -> Wire:
    """Features split in two parts, the second swapped to the front."""
    features = x.sizes["f"]
    if features < 2:
        return x
    part = draw(whole(1, features - 1))
    sizes = net.ints(part, features - part)
    first = net.op("Split", x.name, sizes, outputs=2, axis=x.at("f"))
    return net.wire(net.op("Concat", f"{first}.1", first, axis=x.at("f")), x, x.axes)


def laid_out(net: Net, draw: Draw, x: Wire) -> Wire:
    """A constant laid out over all frames, beside the features."""
    x = net.laid(x, draw(one_of("btf", "tbf")))
    sizes = [*(net.size(x, letter) for letter in x.axes[:2]), net.ints(2)]
    shape = net.op("Concat", *sizes, axis=0)
    if draw(st.booleans()):
        made = net.op("Expand", net.weight(2), shape)
    else:
        content = numpy_helper.from_array(np.array([0.7], np.float32))
        made = net.op("ConstantOfShape", shape, value=content)
    name = net.op("Concat", x.name, made, axis=2)
    return net.wire(name, x, x.axes, f=x.sizes["f"] + 2)


def copied(net: Net, draw: Draw, x: Wire) -> Wire:
    """Frames laid out along an axis more, which is summed over again."""
    sizes = [net.size(x, letter) for letter in x.axes]
    copies = net.op("Expand", x.name, net.op("Concat", net.ints(2), *sizes, axis=0))
    weighed = net.op("Mul", copies, net.weight(2, *(1 for _ in x.axes)))
    return net.wire(net.op("ReduceSum", weighed, net.ints(0), keepdims=0), x, x.axes)


def gate(net: Net, draw: Draw, x: Wire) -> Wire:
    y = linear(net, draw, x, out=1)
    x = net.laid(x, y.axes)
    return net.wire(net.op("Mul", x.name, net.op("Sigmoid", y.name)), x, x.axes)


def batch_norm(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    features = x.sizes["f"]
    spread = net.constant(net.rng.uniform(0.5, 2, features), np.float32)
    parameters = [net.weight(features), net.weight(features), net.weight(features), spread]
    return net.wire(net.op("BatchNormalization", x.name, *parameters), x, "bft")


def layer_norm(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, draw(one_of("btf", "tbf")))
    scale = net.weight(x.sizes["f"])
    name = net.op("LayerNormalization", x.name, scale, axis=-1, epsilon=0.1)
    return net.wire(name, x, x.axes)


def softmax(net: Net, draw: Draw, x: Wire) -> Wire:
    axis = draw(one_of(x.at("f"), x.at("f") - len(x.axes)))
    return net.wire(net.op("Softmax", x.name, axis=axis), x, x.axes)


def mean_of_features(net: Net, draw: Draw, x: Wire) -> Wire:
    centre = net.op("ReduceMean", x.name, net.ints(x.at("f")))
    return net.wire(net.op("Sub", x.name, centre), x, x.axes)


def flattened(net: Net, draw: Draw, x: Wire) -> Wire:
    """Features split in two axes and flattened again."""
    if "b" in x.axes and x.sizes.get("b") != 1:
        return x
    x = net.laid(x, "btf")
    bare = net.op("Squeeze", x.name, net.ints(0))
    deep = net.op("Unsqueeze", bare, net.ints(1))
    return net.wire(net.op("Flatten", deep, axis=1), x, "tf")


# Structure


def residual(net: Net, draw: Draw, x: Wire) -> Wire:
    y = x
    for _ in range(draw(whole(1, 2))):
        y = draw(one_of(*SIMPLE))(net, draw, y)
    return meet(net, draw, x, y)


def skip(net: Net, draw: Draw, x: Wire) -> Wire:
    return meet(net, draw, draw(one_of(*net.wires)), x)


def meet(net: Net, draw: Draw, x: Wire, y: Wire) -> Wire:
    """Both in one wire, if their rates and lengths allow; else the second."""
    slow, fast = sorted((x, y), key=lambda wire: wire.stride, reverse=True)
    factor = slow.stride / fast.stride
    if factor.denominator != 1:
        return y
    if factor > 1:
        slow = repeated(net, draw, slow, int(factor))
    ahead = np.array(slow.frames) - np.array(fast.frames)
    by = int(ahead[net.usable][-1]) if net.usable.any() else 0
    if abs(by) > 40:
        return y
    long, short = (slow, fast) if by >= 0 else (fast, slow)
    if by:
        start = draw(whole(0, abs(by)))
        if draw(st.booleans()):
            long = cut(net, long, start, abs(by) - start)
        else:
            short = padded(net, short, start, abs(by) - start)
    net.usable &= np.array(long.frames) == np.array(short.frames)
    return joined(net, draw, long, short)


def joined(net: Net, draw: Draw, x: Wire, y: Wire) -> Wire:
    axes = draw(one_of("btf", "tbf", "bft"))
    x, y = net.laid(x, axes), net.laid(y, axes)
    if "b" in x.sizes:  # an axis of size 1, or of a free size
        x, y = y, x
    if x.sizes.get("b") != y.sizes.get("b"):
        return x
    if draw(st.booleans()):
        name = net.op("Concat", x.name, y.name, axis=axes.index("f"))
        return net.wire(name, x, axes, f=x.sizes["f"] + y.sizes["f"])
    if x.sizes["f"] != y.sizes["f"]:
        y = net.laid(linear(net, draw, y, out=x.sizes["f"]), axes)
    return net.wire(net.op(draw(one_of("Add", "Sub", "Mul")), x.name, y.name), x, axes)


def relaid(net: Net, draw: Draw, x: Wire) -> Wire:
    letters = [letter for letter in "btf" if letter in x.axes or letter == "b"]
    return net.laid(x, "".join(draw(st.permutations(letters))))


SIMPLE: tuple[Block, ...] = (
    conv,
    conv,
    conv2d,
    pool,
    pad,
    slice_,
    shifted,
    delta,
    context,
    recurrent,
    scan,
    running_sum,
    running_mean,
    positions,
    linear,
    activation,
    gate,
    batch_norm,
    layer_norm,
    softmax,
    mean_of_features,
    flattened,
    relaid,
    upsample,
    conv_transpose,
    conv_transpose,
    spectrum,
    products,
    regrouped,
    parted,
    laid_out,
    copied,
)
BLOCKS: tuple[Block, ...] = (*SIMPLE, residual, residual, skip, skip, recurrent)


def source(net: Net, draw: Draw) -> Wire:
    """The input; its batch free, fixed, or left out."""
    axes = draw(one_of("btf", "btf", "btf", "tbf", "bft", "tf", "1tf", "2tf"))
    sizes = {"f": draw(whole(1, 4))} | ({"b": int(axes[0])} if axes[0].isdigit() else {})
    axes = axes.replace("1", "b").replace("2", "b")
    dims = [sizes.get(letter, FREE.get(letter, "")) for letter in axes]
    net.inputs.append(net.value("x", dims))
    x = Wire("x", axes, sizes, Fraction(1), tuple(range(MOST_FRAMES)))
    net.wires.append(x)
    return x


def second_source(net: Net, draw: Draw, x: Wire) -> Wire:
    """Another input beside the first: frames, ids, or a vector for the whole sequence."""
    kind = draw(one_of("frames", "ids", "vector"))
    x = net.laid(x, "btf")
    batch = x.sizes.get("b", "batch")
    if kind == "frames":
        features = draw(whole(1, 3))
        net.inputs.append(net.value("x2", [batch, "time", features]))
        return joined(net, draw, x, net.wire("x2", x, "btf", f=features))
    if kind == "ids":
        net.inputs.append(net.value("ids", [batch, "time"], TensorProto.INT64))
        looked_up = net.op("Gather", net.weight(5, x.sizes["f"]), "ids", axis=0)
        return joined(net, draw, x, net.wire(looked_up, x, "btf"))
    net.inputs.append(net.value("vector", [batch, x.sizes["f"]]))
    laid = net.op("Unsqueeze", "vector", net.ints(1))
    return net.wire(net.op("Add", x.name, laid), x, "btf")


def give(net: Net, draw: Draw, x: Wire, *, last: bool = False) -> None:
    """Make the wire an output: all its frames, or the last."""
    dims: list[int | str] = [x.sizes.get(letter, FREE.get(letter, "")) for letter in x.axes]
    name = x.name
    if not last:
        if x.frames != tuple(range(MOST_FRAMES)):
            dims[x.at("t")] = f"{name}_frames"
        if draw(st.booleans()) or name in {o.name for o in (*net.outputs, *net.inputs)}:
            name = net.op("Identity", name)
    elif draw(st.booleans()):
        at = draw(one_of(-1, [-1]))
        name = net.op("Gather", name, net.constant(at), axis=x.at("t"))
        dims[x.at("t") : x.at("t") + 1] = [] if at == -1 else [1]
    else:
        name = net.op("Slice", name, net.ints(-1), net.ints(_END), net.ints(x.at("t")))
        dims[x.at("t")] = 1
    net.outputs.append(net.value(name, dims))


@st.composite
def networks(draw: Draw, blocks: Sequence[Block] = BLOCKS, most: int = 6) -> Net:
    """Networks of up to `most` blocks, each defined for several lengths."""
    net = Net(np.random.default_rng(draw(whole(0, 2**32 - 1))))
    x = source(net, draw)
    if draw(whole(0, 4)) == 0:
        x = second_source(net, draw, x)
    for block in draw(st.lists(one_of(*blocks), min_size=1, max_size=most)):
        x = block(net, draw, x)
    give(net, draw, x)
    for _ in range(draw(one_of(0, 0, 0, 1, 2))):
        give(net, draw, draw(one_of(*net.wires)), last=draw(st.booleans()))
    assume(len(net.lengths()) >= 4)
    return net


def save(net: Net, path: Path) -> Path:
    onnx.save(net.model(), path)
    return path


# What cannot stream: blocks that need frames which are still to come, or all of them


def backward(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "tbf")
    gates = 6
    parameters = [net.weight(1, gates, x.sizes["f"]), net.weight(1, gates, 2)]
    name = net.op("GRU", x.name, *parameters, hidden_size=2, direction="reverse")
    return net.wire(net.op("Squeeze", name, net.ints(1)), x, "tbf", f=2)


def both_ways(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "tbf")
    parameters = [net.weight(2, 8, x.sizes["f"]), net.weight(2, 8, 2)]
    name = net.op("LSTM", x.name, *parameters, hidden_size=2, direction="bidirectional")
    side_by_side = net.op("Transpose", name, perm=[0, 2, 1, 3])
    return net.wire(net.op("Reshape", side_by_side, net.ints(0, 0, 4)), x, "tbf", f=4)


def by_lengths(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "tbf")
    net.inputs.append(net.value("lengths", [x.sizes.get("b", "batch")], TensorProto.INT32))
    parameters = [net.weight(1, 6, x.sizes["f"]), net.weight(1, 6, 2), "", "lengths"]
    name = net.op("GRU", x.name, *parameters, hidden_size=2)
    return net.wire(net.op("Squeeze", name, net.ints(1)), x, "tbf", f=2)


def scanned_backward(net: Net, draw: Draw, x: Wire) -> Wire:
    made = scan(net, draw, x)
    net.nodes[-1].attribute.append(helper.make_attribute("scan_input_directions", [1]))
    return made


def centred(net: Net, draw: Draw, x: Wire) -> Wire:
    """Without its mean, or its greatest, over all frames."""
    kind = draw(one_of("ReduceMean", "ReduceMax", "ReduceSum"))
    centre = net.op(kind, x.name, net.ints(x.at("t")))
    return net.wire(net.op("Sub", x.name, centre), x, x.axes)


def global_pool(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    centre = net.op(draw(one_of("GlobalAveragePool", "GlobalMaxPool")), x.name)
    return net.wire(net.op("Sub", x.name, centre), x, "bft")


def softmax_of_frames(net: Net, draw: Draw, x: Wire) -> Wire:
    return net.wire(net.op("Softmax", x.name, axis=x.at("t")), x, x.axes)


def norm_of_frames(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    if draw(st.booleans()):
        name = net.op("LayerNormalization", x.name, net.weight(1), axis=-1)
    else:
        parameters = [net.weight(x.sizes["f"]), net.weight(x.sizes["f"])]
        name = net.op("InstanceNormalization", x.name, *parameters)
    return net.wire(name, x, "bft")


def mirrored(net: Net, draw: Draw, x: Wire) -> Wire:
    amounts = [2 * (letter == "t") for letter in x.axes] * 2
    name = net.op("Pad", x.name, net.ints(*amounts), mode=draw(one_of("reflect", "edge", "wrap")))
    return net.wire(name, x, x.axes, [n + 4 for n in x.frames])


def flipped(net: Net, draw: Draw, x: Wire) -> Wire:
    numbers = (-1, -_END, x.at("t"), -1)
    return net.wire(net.op("Slice", x.name, *(net.ints(n) for n in numbers)), x, x.axes)


def interpolated(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    scales = net.constant([1, 1, 2], np.float32)
    name = net.op("Resize", x.name, "", scales, mode=draw(one_of("linear", "cubic")))
    return net.wire(name, x, "bft", [2 * n for n in x.frames], stride=x.stride / 2)


def attended(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "btf")
    if draw(st.booleans()):
        scores = net.op("MatMul", x.name, net.op("Transpose", x.name, perm=[0, 2, 1]))
    else:
        scores = net.op("Einsum", x.name, x.name, equation="btf,bsf->bts")
    weights = net.op("Softmax", scores, axis=-1)
    return net.wire(net.op("MatMul", weights, x.name), x, "btf")


def merged_with_features(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "btf")
    flat = (
        net.op("Flatten", x.name)
        if draw(st.booleans())
        else net.op("Reshape", x.name, net.ints(0, -1))
    )
    deep = net.op("Unsqueeze", flat, net.ints(2))
    frames = [n * x.sizes["f"] for n in x.frames]
    return net.wire(deep, x, "btf", frames, f=1, stride=x.stride / x.sizes["f"])


def summed_backward(net: Net, draw: Draw, x: Wire) -> Wire:
    name = net.op("CumSum", x.name, net.constant(x.at("t")), reverse=1)
    return net.wire(name, x, x.axes)


def first_frames(net: Net, draw: Draw, x: Wire) -> Wire:
    numbers = (0, 3, x.at("t"), 1)
    name = net.op("Slice", x.name, *(net.ints(n) for n in numbers))
    return net.wire(name, x, x.axes, [min(n, 3) for n in x.frames])


def end_in_every_frame(net: Net, draw: Draw, x: Wire) -> Wire:
    last = net.op("Gather", x.name, net.ints(-1), axis=x.at("t"))
    return net.wire(net.op("Add", x.name, last), x, x.axes)


def twice(net: Net, draw: Draw, x: Wire) -> Wire:
    name = net.op("Concat", x.name, x.name, axis=x.at("t"))
    return net.wire(name, x, x.axes, [2 * n for n in x.frames], stride=x.stride / 2)


def padded_by_length(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    w = net.weight(2, x.sizes["f"], 3)
    name = net.op("Conv", x.name, w, auto_pad="SAME_UPPER", strides=[2])
    frames = [-(-n // 2) for n in x.frames]
    return net.wire(name, x, "bft", frames, f=2, stride=x.stride * 2)


def places_of_maxima(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "bft")
    name = net.op("MaxPool", x.name, outputs=2, kernel_shape=[2])
    cast = net.op("Cast", f"{name}.1", to=TensorProto.FLOAT)
    return net.wire(cast, x, "bft", [n - 1 for n in x.frames])


def frames_as_channels(net: Net, draw: Draw, x: Wire) -> Wire:
    x = net.laid(x, "btf")
    name = net.op("Conv", x.name, net.weight(3, 3, 1))
    return net.wire(name, x, "btf", [3 * (n > 0) for n in x.frames])


# Each with the operator and the reason it is refused for, and what the hint speaks of.
BREAKING: dict[str, tuple[Block, str, str]] = {
    "backward": (backward, "GRU node .* it is reverse", "forward layer.*look-ahead"),
    "bidirectional": (both_ways, "LSTM node .* it is bidirectional", "forward layer.*look-ahead"),
    "lengths": (by_lengths, "GRU node .* the lengths of its sequences", "packing"),
    "scanned backward": (scanned_backward, "Scan node .* from its end", "forward"),
    "centred": (centred, "Reduce.* node .* runs over time", "running mean"),
    "global pool": (global_pool, "Global.*Pool node .* runs over time", "running mean"),
    "softmax": (softmax_of_frames, "Softmax node .* runs over time", "causal"),
    "norm": (norm_of_frames, ".*Normalization node .* runs over time", "norm over features"),
    "mirrored": (mirrored, "Pad node .* its own frames", "zeros"),
    "flipped": (flipped, "Slice node .* backward", "forward"),
    "interpolated": (interpolated, "Resize node .* interpolates", "nearest"),
    "attended": (attended, "(MatMul|Einsum) node .* frames by other frames", "window of the past"),
    "merged": (merged_with_features, "(Flatten|Reshape) node .* merges the time axis", "time"),
    "summed backward": (summed_backward, "CumSum node .* from the end", "start"),
    "first frames": (first_frames, "Slice node .* place in the whole sequence", "end"),
    "end in every frame": (end_in_every_frame, "Add node .* at the end of the seq", "so far"),
    "twice": (twice, "Concat node .* one sequence behind another", "features"),
    "padded by length": (padded_by_length, "Conv node .* depends on the length", "numbers"),
    "places": (places_of_maxima, "MaxPool node .* places of its maxima", "maxima themselves"),
    "channels": (frames_as_channels, "Conv node .* its channel axis", "Transpose"),
}


@st.composite
def broken_networks(draw: Draw, breaking: Block) -> Net:
    """Networks with a block that cannot stream among others."""
    net = Net(np.random.default_rng(draw(whole(0, 2**32 - 1))))
    x = source(net, draw)
    blocks = st.lists(one_of(*SIMPLE), max_size=2)
    for block in (*draw(blocks), breaking, *draw(blocks)):
        x = block(net, draw, x)
    give(net, draw, x)
    return net
