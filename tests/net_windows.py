"""Blocks of random networks that see several frames at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from net_layers import linear
from net_wires import (
    END,
    Draw,
    Net,
    Wire,
    one_of,
    slid,
    stride_of,
    whole,
)


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


def padded(net: Net, x: Wire, left: int, right: int, fill: float = 0) -> Wire:
    amounts = [left * (letter == "t") for letter in x.axes]
    amounts += [right * (letter == "t") for letter in x.axes]
    dtype = np.int64 if "f" not in x.axes else np.float32
    name = net.op("Pad", x.name, net.ints(*amounts), net.constant(fill, dtype))
    return net.wire(name, x, x.axes, [n + left + right for n in x.frames])


def slice_(net: Net, draw: Draw, x: Wire) -> Wire:
    step = stride_of(draw, x)
    return cut(net, x, draw(whole(0, 3)), draw(whole(0, 3)), step)


def cut(net: Net, x: Wire, start: int, end: int, step: int = 1) -> Wire:
    """`x[:, start:-end:step]`."""
    numbers = (start, -end if end else END, x.at("t"), step)
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
