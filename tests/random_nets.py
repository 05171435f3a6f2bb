"""Random networks as ONNX graphs, made of the blocks that recurrent networks are made of.

No exporter is involved, so a network costs milliseconds. Each wire knows its axes and how many
frames it holds for so many input frames, by arithmetic of its own: `Net.usable` says for which
lengths the network is defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import TensorProto

from net_layers import (
    activation,
    batch_norm,
    copied,
    flattened,
    gate,
    laid_out,
    layer_norm,
    linear,
    mean_of_features,
    parted,
    positions,
    products,
    recurrent,
    regrouped,
    running_mean,
    running_sum,
    scan,
    softmax,
)
from net_windows import (
    context,
    conv,
    conv2d,
    conv_transpose,
    cut,
    delta,
    pad,
    padded,
    pool,
    repeated,
    shifted,
    slice_,
    spectrum,
    upsample,
)
from net_wires import (
    END,
    FREE,
    MOST_FRAMES,
    Block,
    Draw,
    Net,
    Wire,
    one_of,
    whole,
)


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
    pool,
    pool,
    pad,
    slice_,
    shifted,
    delta,
    context,
    recurrent,
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
        late = replace(x, name="ids", axes="bt")
        if draw(st.booleans()):  # each sees the one before
            late = padded(net, cut(net, late, 0, 1), 1, 0, fill=2)
            del net.wires[-2:]  # which hold no features
        looked_up = net.op("Gather", net.weight(5, x.sizes["f"]), late.name, axis=0)
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
        name = net.op("Slice", name, net.ints(-1), net.ints(END), net.ints(x.at("t")))
        dims[x.at("t")] = 1
    net.outputs.append(net.value(name, dims))


@st.composite
def networks(draw: Draw, blocks: Sequence[Block] = BLOCKS, most: int = 6) -> Net:
    """Networks of up to `most` blocks, each defined for several lengths."""
    net = Net(np.random.default_rng(draw(whole(0, 2**32 - 1))), named=draw(st.booleans()))
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
