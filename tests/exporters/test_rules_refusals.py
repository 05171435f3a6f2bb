"""Rules of the streaming transform: what they refuse, each by the operator and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import rnnx
from exportable import GRU, SIZES, save_text

X = "float[batch,time,4] x"
CUT = "float[batch,rest,4] y"
# name: inputs, outputs, the graph, the operator and the reason
REFUSED: dict[str, tuple[str, str, str, str]] = {
    "unknown": (X, CUT, "y = EyeLike<dtype=1>(x)", "EyeLike .* no streaming rule"),
    "foreign": (X, CUT, "y = com.microsoft.Gelu(x)", "Gelu .* no streaming rule"),
    "squeeze": (X, "float[batch,4] y", "y = Squeeze(x)", "Squeeze .* removes the time axis"),
    "squeeze-time": (
        X,
        "float[batch,4] y",
        "a = Constant<value_ints=[1]>()  y = Squeeze(x, a)",
        "Squeeze .* removes the time axis",
    ),
    "flatten": (X, "float[batch,rest] y", "y = Flatten(x)", "Flatten .* merges the time axis"),
    "gemm-over-time": (
        "float[time,2] x",
        "float[2,2] y",
        "w = Constant<value=float[2,2] {1.0, 2.0, 3.0, 4.0}>()  y = Gemm<transA=1>(x, w)",
        "Gemm .* sums over time",
    ),
    "gemm-of-frames": (
        "float[time,2] x",
        "float[time,time] y",
        "y = Gemm<transB=1>(x, x)",
        "Gemm .* frames by other frames",
    ),
    "product-over-time": (
        "float[batch,2,time] x",
        "float[batch,2,1] y",
        "w = Constant<value=float[7,1] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>()  y = MatMul(x, w)",
        "MatMul .* sums over time",
    ),
    "product-of-frames": (
        X,
        "float[batch,time,time] y",
        "t = Transpose<perm=[0,2,1]>(x)  y = MatMul(x, t)",
        "MatMul .* frames by other frames",
    ),
    "reflected": (
        X,
        CUT,
        'p = Constant<value_ints=[0,1,0,0,1,0]>()  y = Pad<mode="reflect">(x, p)',
        "Pad .* pads the sequence by its own frames",
    ),
    "cropped-by-padding": (
        X,
        CUT,
        "p = Constant<value_ints=[0,-1,0,0,0,0]>()  y = Pad(x, p)",
        "Pad .* cuts frames off by a negative padding",
    ),
    "sum-of-what-follows": (
        X,
        CUT,
        "a = Constant<value_int=1>()  y = CumSum<reverse=1>(x, a)",
        "CumSum .* sums from the end of the sequence",
    ),
    "rates-meet": (
        X,
        CUT,
        "a = Constant<value_ints=[0]>()  b = Constant<value_ints=[9223372036854775807]>()"
        "  c = Constant<value_ints=[1]>()  d = Constant<value_ints=[2]>()"
        "  half = Slice(x, a, b, c, d)  y = Add(x, half)",
        "Add .* different rates: every 1, 2 input frames",
    ),
    "padded-by-frames-that-differ": (
        "float[time,1] x",
        "float[rest,1] y",
        "c = Constant<value=float[2,1] {1.0, 2.0}>()  y = Concat<axis=0>(c, x)",
        "Concat .* not all alike",
    ),
    "padded-by-length": (
        "float[batch,1,time] x",
        "float[batch,1,rest] y",
        "w = Constant<value=float[1,1,2] {1.0, 2.0}>()"
        '  y = Conv<auto_pad="SAME_UPPER", kernel_shape=[2]>(x, w)',
        "Conv .* auto_pad SAME_UPPER depends on the length",
    ),
    "places-of-maxima": (
        "float[batch,1,time] x",
        "float[batch,1,rest] y, int64[batch,1,rest] i",
        "y, i = MaxPool<kernel_shape=[2]>(x)",
        "MaxPool .* places of its maxima",
    ),
    "mean-of-a-rest": (
        "float[batch,1,time] x",
        "float[batch,1,rest] y",
        "y = AveragePool<kernel_shape=[2], strides=[2], ceil_mode=1>(x)",
        "AveragePool .* ceil_mode",
    ),
    "constant-along-time": (
        X,
        "float[batch,2,4] y",
        "c = Constant<value=float[2,1] {1.0, 2.0}>()  y = Add(x, c)",
        "Add .* fixed length 2 along time",
    ),
    "expanded-to-a-length": (
        "float[batch,time,1] x",
        "float[batch,7,4] y",
        "to = Constant<value_ints=[1,7,4]>()  y = Expand(x, to)",
        "Expand .* fixed length",
    ),
    "expanded-along-a-second-time": (
        X,
        "float[batch,time,time,4] y",
        SIZES + "u = Unsqueeze(x, one)  to = Concat<axis=0>(one, t, one, one)  y = Expand(u, to)",
        "Expand .* along a second axis that counts frames",
    ),
    "joined-to-a-length": (
        X,
        "float[batch,time,8] y",
        "to = Constant<value_ints=[2,7,4]>()  c = ConstantOfShape(to)  y = Concat<axis=2>(x, c)",
        "Concat .* fixed length along time",
    ),
    "joined-along-time": (
        X,
        CUT,
        "y = Concat<axis=1>(x, x)",
        "Concat .* one sequence behind another",
    ),
    "split-along-time": (
        X,
        f"{CUT}, float[batch,rest,4] z",
        "y, z = Split<axis=1, num_outputs=2>(x)",
        "Split .* cuts the sequence",
    ),
    "first-frames": (
        X,
        CUT,
        "a = Constant<value_ints=[1]>()  b = Constant<value_ints=[99]>()  y = Slice(x, a, b, a)",
        "Slice .* by their place in the whole sequence",
    ),
    "last-two-frames": (
        X,
        CUT,
        "m = Constant<value_ints=[-2]>()  b = Constant<value_ints=[9223372036854775807]>()"
        "  a = Constant<value_ints=[1]>()  y = Slice(x, m, b, a)",
        "Slice .* by their place in the whole sequence",
    ),
    "backward": (
        X,
        CUT,
        "m = Constant<value_ints=[-1]>()  b = Constant<value_ints=[-9223372036854775808]>()"
        "  a = Constant<value_ints=[1]>()  y = Slice(x, m, b, a, m)",
        "Slice .* read backward from its end",
    ),
    "last-of-a-few-frames": (
        X,
        CUT,
        "m = Constant<value_ints=[-1]>()  b = Constant<value_ints=[30]>()"
        "  a = Constant<value_ints=[1]>()  y = Slice(x, m, b, a)",
        "Slice .* by their place in the whole sequence",
    ),
    "one-frame": (
        X,
        "float[batch,4] y",
        "i = Constant<value_int=0>()  y = Gather<axis=1>(x, i)",
        "Gather .* single frames",
    ),
    "frame-by-frame": (
        "float[time] x",
        "float[time] y",
        "i = Cast<to=7>(x)  y = Gather(x, i)",
        "Gather .* an index that depends on the frames",
    ),
    "three-in-two": (
        X,
        "float[batch,rest,6] y",
        SIZES
        + "m = Constant<value_ints=[-1]>()  six = Constant<value_ints=[6]>()"
        + "  to = Concat<axis=0>(b, m, six)  y = Reshape(x, to)",
        "Reshape .* merges the time axis",
    ),
    "merged": (
        X,
        "float[rest,4] y",
        "to = Constant<value_ints=[-1,4]>()  y = Reshape(x, to)",
        "batch and time",
    ),
    "time-by-time": (
        X,
        "float[time,time] y",
        SIZES + "to = Concat<axis=0>(t, t)  y = ConstantOfShape(to)",
        "ConstantOfShape .* second axis that counts frames",
    ),
    "frames-and-length": (
        X,
        "float[batch,time,4] y",
        SIZES + "n = Cast<to=1>(t)  y = Div(x, n)",
        "computes with the number of frames",
    ),
    "each-pair-of-frames": (
        "float[time,4] x",
        "float[time,time,4] y",
        "a = Constant<value_ints=[0]>()  b = Constant<value_ints=[1]>()  u = Unsqueeze(x, a)"
        "  v = Unsqueeze(x, b)  y = Sub(u, v)",
        "Sub .* different axes",
    ),
    "channels-over-time": (
        X,
        "float[batch,time,4] y",
        "one = Constant<value=float[1] {1.0}>()  y = BatchNormalization(x, one, one, one, one)",
        "BatchNormalization .* channel axis",
    ),
    "conv-over-channels": (
        X,
        "float[batch,1,4] y",
        "w = Constant<value=float[1,7,1] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>()  y = Conv(x, w)",
        "Conv .* time is its channel axis",
    ),
    "instance-norm": (
        "float[batch,1,time] x",
        "float[batch,1,time] y",
        "one = Constant<value=float[1] {1.0}>()  y = InstanceNormalization(x, one, one)",
        "InstanceNormalization .* runs over time",
    ),
    "softmax": (X, "float[batch,time,4] y", "y = Softmax<axis=-2>(x)", "Softmax runs over time"),
    "layer-norm": (
        "float[batch,2,time] x",
        "float[batch,2,time] y",
        "g = Constant<value=float[1] {1.0}>()  y = LayerNormalization<axis=1>(x, g)",
        "LayerNormalization runs over time",
    ),
    "reduce-all": (X, "float[1,1,1] y", "y = ReduceMax(x)", "ReduceMax runs over time"),
    "arg-max": (X, "int64[batch,1,4] y", "y = ArgMax<axis=1>(x)", "ArgMax runs over time"),
    "top-k": (
        X,
        f"{CUT}, int64[batch,rest,4] i",
        "k = Constant<value_ints=[1]>()  y, i = TopK<axis=1>(x, k)",
        "TopK runs over time",
    ),
    "computed-pads": (
        X,
        "float[batch,time,rest] y",
        "p = Constant<value_ints=[0,0,1,0,0,2]>()  q = Abs(p)  y = Pad(x, q)",
        "Pad .* must be constant is computed",
    ),
    "batch-as-time": (
        "float[batch,time,4] x",
        "float[batch,1,time,3] y",
        GRU + "y = GRU<hidden_size=3>(x, w, r)",
        "GRU .* time is not the first axis",
    ),
    "reverse": (
        X,
        "float[time,1,batch,3] y",
        GRU + 'y = GRU<hidden_size=3, direction="reverse">(xt, w, r)',
        "GRU .* it is reverse",
    ),
    "from-another-end": (
        X,
        "float[time,1,batch,3] y",
        GRU + "y0, h = GRU<hidden_size=3>(xt, w, r)  y = GRU<hidden_size=3>(xt, w, r, , , h)",
        "GRU .* another sequence has ended",
    ),
    "end-in-every-frame": (
        X,
        "float[time,1,batch,3] y",
        GRU + "y0, h = GRU<hidden_size=3>(xt, w, r)  y = Add(y0, h)",
        "Add .* every frame with the value at the end",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_operator_and_reason(tmp_path: Path, name: str) -> None:
    inputs, outputs, body, message = REFUSED[name]
    src = save_text(tmp_path / "src.onnx", inputs, outputs, body)
    with pytest.raises(rnnx.NotStreamableError, match=message) as caught:
        rnnx.to_streaming(src, tmp_path / "dst.onnx")
    assert caught.value.hint
    assert "fault in rnnx" not in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == [src]


def test_a_graph_in_a_branch_is_refused(tmp_path: Path) -> None:
    branch = "g () => (float[batch,time,4] z) { z = Relu(x) }"
    body = f"y = If(flag) <then_branch = {branch}, else_branch = {branch}>"
    src = save_text(tmp_path / "src.onnx", f"{X}, bool flag", "float[batch,time,4] y", body)
    with pytest.raises(rnnx.NotStreamableError, match=r"If .* reads 'x' from outside"):
        rnnx.to_streaming(src, tmp_path / "dst.onnx")


def test_what_gives_no_frames_is_nothing_to_stream(tmp_path: Path) -> None:
    src = save_text(tmp_path / "src.onnx", X + ", float[4] z", "float[4] y", "y = Relu(z)")
    with pytest.raises(rnnx.NotStreamableError, match="nothing to stream"):
        rnnx.to_streaming(src, tmp_path / "dst.onnx")
