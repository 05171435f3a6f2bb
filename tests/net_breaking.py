"""Blocks that cannot stream: they need frames that are still to come, or all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper

from net_layers import (
    linear,
    scan,
)
from net_wires import (
    END,
    Block,
    Draw,
    Net,
    Wire,
    one_of,
)


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
    numbers = (-1, -END, x.at("t"), -1)
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
    """All frames of the first feature, and behind them all of the second."""
    x = net.laid(linear(net, draw, x, out=2), "bft")
    if draw(st.booleans()):
        flat = net.op("Flatten", x.name)
    else:
        flat = net.op("Reshape", x.name, net.ints(0, -1))
    deep = net.op("Unsqueeze", flat, net.ints(2))
    return net.wire(deep, x, "btf", [2 * n for n in x.frames], f=1, stride=x.stride / 2)


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
