"""Blocks of random networks that remember, and those that run frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from net_wires import (
    Draw,
    Net,
    Wire,
    one_of,
    whole,
)

Array = npt.NDArray[Any]
STEPS = {"RNN": 1, "GRU": 3, "LSTM": 4}


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
    if x.sizes["f"] == 1:  # of which nothing would be left
        return x
    scale = net.weight(x.sizes["f"])
    name = net.op("LayerNormalization", x.name, scale, axis=-1, epsilon=0.1)
    return net.wire(name, x, x.axes)


def softmax(net: Net, draw: Draw, x: Wire) -> Wire:
    if x.sizes["f"] == 1:
        return x
    axis = draw(one_of(x.at("f"), x.at("f") - len(x.axes)))
    return net.wire(net.op("Softmax", x.name, axis=axis), x, x.axes)


def mean_of_features(net: Net, draw: Draw, x: Wire) -> Wire:
    if x.sizes["f"] == 1:
        return x
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
