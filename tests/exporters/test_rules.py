"""Rules of the streaming transform: what they let through, many of it never exported.

Each graph is streamed in chunks against its own whole run in plain onnxruntime.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import rnnx
from exportable import SIZES, hold_chunks, save_text

X = "float[batch,time,4] x"

# name: inputs, outputs, the graph, the time axis of its first output
ACCEPTED: dict[str, tuple[str, str, str, int]] = {
    "gather-of-shape": (
        X,
        "float[batch,time,2,2] y",
        SIZES
        + "f = Constant<value_ints=[2,2]>()  to = Concat<axis=0>(b, t, f)  y = Reshape(x, to)",
        1,
    ),
    "slice-of-shape": (
        X,
        "float[batch,time,2,2] y",
        SIZES
        + "lead = Slice(s, zero, two)  f = Constant<value_ints=[2,2]>()"
        + "  to = Concat<axis=0>(lead, f)  y = Reshape(x, to)",
        1,
    ),
    "rest-of-shape": (
        X,
        "float[batch,time,4] y",
        SIZES
        + "end = Constant<value_ints=[9]>()  rest = Slice(s, one, end)"
        + "  to = Concat<axis=0>(b, rest)  r = Relu(x)  y = Reshape(r, to)",
        1,
    ),
    "part-of-shape": (
        X,
        "float[batch,time,2,2] y",
        "lead = Shape<start=0, end=-1>(x)  f = Constant<value_ints=[2,2]>()"
        "  to = Concat<axis=0>(lead, f)  y = Reshape(x, to)",
        1,
    ),
    "sizes-cast-and-chosen": (
        X,
        "float[batch,time,2,2] y",
        SIZES
        + "small = Cast<to=6>(t)  t1 = Cast<to=7>(small)  none = Constant<value_ints=[-1]>()"
        + "  unset = Equal(t1, none)  t2 = Where(unset, one, t1)  f = Constant<value_ints=[2,2]>()"
        + "  to = Concat<axis=0>(b, t2, f)  y = Reshape(x, to)",
        1,
    ),
    "reshape-with-a-rest": (
        X,
        "float[batch,time,2,2] y",
        SIZES
        + "f = Constant<value_ints=[-1,2,2]>()  to = Concat<axis=0>(b, f)  y = Reshape(x, to)",
        1,
    ),
    "reshape-by-zeros": (
        X,
        "float[batch,time,2,2] y",
        "to = Constant<value_ints=[0,0,2,-1]>()  y = Reshape(x, to)",
        1,
    ),
    "constant-of-shape": (
        X,
        "float[batch,time,4] y",
        SIZES
        + "to = Concat<axis=0>(b, t, one)  ones = ConstantOfShape<value=float[1] {1.0}>(to)"
        + "  y = Add(x, ones)",
        1,
    ),
    "constant-expanded": (
        X,
        "float[batch,time,4] y",
        SIZES
        + "c = Constant<value=float[4] {1.0, 2.0, 3.0, 4.0}>()"
        + "  four = Constant<value_ints=[4]>()  to = Concat<axis=0>(b, t, four)"
        + "  e = Expand(c, to)  y = Mul(x, e)",
        1,
    ),
    "frames-expanded": (
        X,
        "float[batch,time,3,4] y",
        SIZES
        + "u = Unsqueeze(x, two)  f = Constant<value_ints=[3,1]>()"
        + "  to = Concat<axis=0>(b, t, f)  y = Expand(u, to)",
        1,
    ),
    "frames-expanded-behind": (
        "float[time,4] x",
        "float[3,time,4] y",
        "s = Shape<start=0, end=1>(x)  f = Constant<value_ints=[3]>()"
        "  one = Constant<value_ints=[1]>()  to = Concat<axis=0>(f, s, one)  y = Expand(x, to)",
        1,
    ),
    "squeeze-unsqueeze": (
        "float[batch,1,time,4] x",
        "float[1,batch,time,4] y",
        "one = Constant<value_ints=[1]>()  zero = Constant<value_ints=[-4]>()"
        "  a = Squeeze(x, one)  y = Unsqueeze(a, zero)",
        2,
    ),
    "transpose-without-perm": ("float[time,4] x", "float[4,time] y", "y = Transpose(x)", 1),
    "flatten": ("float[time,4,2] x", "float[time,8] y", "y = Flatten<axis=1>(x)", 0),
    "gemm": (
        "float[time,2] x",
        "float[time,2] y",
        "w = Constant<value=float[2,2] {1.0, 2.0, 3.0, 4.0}>()"
        "  c = Constant<value=float[2] {1.0, -1.0}>()  y = Gemm(x, w, c)",
        0,
    ),
    "gemm-transposed": (
        "float[2,time] x",
        "float[time,2] y",
        "w = Constant<value=float[2,2] {1.0, 2.0, 3.0, 4.0}>()  y = Gemm<transA=1>(x, w)",
        0,
    ),
    "product-with-more-axes": (
        "float[time,2] x",
        "float[3,time,1] y",
        "w = Constant<value=float[3,2,1] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>()  y = MatMul(x, w)",
        1,
    ),
    "frames-on-the-right": (
        "float[batch,2,time] x",
        "float[batch,1,time] y",
        "w = Constant<value=float[1,2] {1.0, 2.0}>()  y = MatMul(w, x)",
        2,
    ),
    "pad": (
        X,
        "float[batch,time,7] y",
        "p = Constant<value_ints=[0,0,1,0,0,2]>()  y = Pad(x, p)",
        1,
    ),
    "pad-along-axes": (
        X,
        "float[batch,time,7] y",
        "p = Constant<value_ints=[1,2]>()  a = Constant<value_ints=[-1]>()  y = Pad(x, p, , a)",
        1,
    ),
    "split": (
        X,
        "float[batch,time,1] y, float[batch,time,3] z",
        "n = Constant<value_ints=[1,3]>()  y, z = Split<axis=-1>(x, n)",
        1,
    ),
    "concat": (X, "float[batch,time,8] y", "r = Relu(x)  y = Concat<axis=-1>(x, r)", 1),
    "gather-one-feature": (
        "float[4,batch,time] x",
        "float[batch,time] y",
        "i = Constant<value_int=2>()  y = Gather(x, i)",
        1,
    ),
    "gather-features": (
        "float[4,batch,time] x",
        "float[2,1,batch,time] y",
        "i = Constant<value=int64[2,1] {2, 0}>()  y = Gather(x, i)",
        3,
    ),
    "gather-behind-time": (
        X,
        "float[batch,time] y",
        "i = Constant<value_int=2>()  y = Gather<axis=2>(x, i)",
        1,
    ),
    "slice-features": (
        X,
        "float[batch,time,2] y",
        "a = Constant<value_ints=[1]>()  b = Constant<value_ints=[3]>()"
        "  k = Constant<value_ints=[2]>()  y = Slice(x, a, b, k)",
        1,
    ),
    "reduce": (
        X,
        "float[batch,time] y",
        "a = Constant<value_ints=[-1]>()  y = ReduceMean<keepdims=0>(x, a)",
        1,
    ),
    "reduce-before-time": (
        "float[4,batch,time] x",
        "float[batch,time] y",
        "a = Constant<value_ints=[0]>()  y = ReduceL2<keepdims=0>(x, a)",
        1,
    ),
    "arg-max": (X, "int64[batch,time,1] y", "y = ArgMax<axis=2>(x)", 1),
    "top-k": (
        X,
        "float[batch,time,2] y, int64[batch,time,2] i",
        "k = Constant<value_ints=[2]>()  y, i = TopK(x, k)",
        1,
    ),
    "softmax": (X, "float[batch,time,4] y", "y = LogSoftmax<axis=2>(x)", 1),
    "layer-norm": (
        X,
        "float[batch,time,4] y",
        "g = Constant<value=float[4] {1.0, 2.0, 3.0, 4.0}>()  y = LayerNormalization(x, g)",
        1,
    ),
    "conv-of-one-frame": (
        "float[batch,1,4,time] x",
        "float[batch,1,4,time] y",
        "w = Constant<value=float[1,1,3,1] {1.0, 2.0, 3.0}>()  y = Conv<pads=[1,0,1,0]>(x, w)",
        3,
    ),
    "pool-of-one-frame": (
        "float[batch,1,4,time] x",
        "float[batch,1,2,time] y",
        "y = MaxPool<kernel_shape=[2,1], strides=[2,1]>(x)",
        3,
    ),
    "dropout": (X, "float[batch,time,4] y", "y, mask = Dropout(x)", 1),
    "limits": (
        X,
        "float[batch,time,4] y",
        "low = Constant<value_float=-0.5>()  y = Clip(x, low)",
        1,
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_streams_right(tmp_path: Path, name: str) -> None:
    inputs, outputs, body, axis = ACCEPTED[name]
    src, dst = save_text(tmp_path / "src.onnx", inputs, outputs, body), tmp_path / "dst.onnx"
    contract = rnnx.to_streaming(src, dst)
    assert contract.outputs[0].time_axis == axis
    hold_chunks(src, dst)
