"""Operators that see several frames at once stream exactly, in any chunks, to the last frame.

Each graph is held against its own whole run in plain onnxruntime, at every odd end of a sequence.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rnnx
from exportable import ATOL, GRU, Network, hold_chunks, save_text, torch_run

X = "float[batch,time,4] x"
WAVE = "float[batch,1,time] x"
REST = "float[batch,1,rest] y"
PAIR = "w = Constant<value=float[1,1,2] {1.0, 2.0}>()  "
TRIPLE = "w = Constant<value=float[1,1,3] {1.0, -2.0, 4.0}>()  "
ENDS = (
    "zero = Constant<value_ints=[0]>()  one = Constant<value_ints=[1]>()"
    "  two = Constant<value_ints=[2]>()  end = Constant<value_ints=[9223372036854775807]>()"
    "  m1 = Constant<value_ints=[-1]>()  m2 = Constant<value_ints=[-2]>()  "
)
MAXIMUM = (
    "last, y = Scan<num_scan_inputs = 1, body = step (float[k] m, float[k] f)"
    " => (float[k] n, float[k] o) { n = Max(m, f) o = Identity(n) }>(least, x)"
)
SUM = "a = Constant<value_int=1>()  "
EVERYTHING = None

# The stride, how many frames after its own an output frame depends on, how many in all; the least
# first chunk, and what all others are multiples of.
Timing = tuple[Fraction | int, int, int | None, int, int]
# name: inputs, outputs, the graph, its timing
STREAMED: dict[str, tuple[str, str, str, Timing]] = {
    "conv": (WAVE, REST, PAIR + "y = Conv(x, w)", (1, 1, 2, 2, 1)),
    "causal-conv": (WAVE, REST, PAIR + "y = Conv<pads=[1,0]>(x, w)", (1, 0, 2, 1, 1)),
    "centred-conv": (WAVE, REST, TRIPLE + "y = Conv<pads=[1,1]>(x, w)", (1, 1, 3, 2, 1)),
    "dilated-conv": (
        WAVE,
        REST,
        TRIPLE + "y = Conv<pads=[1,2], dilations=[2]>(x, w)",
        (1, 3, 5, 4, 1),
    ),
    "strided-conv": (
        WAVE,
        REST,
        TRIPLE + "y = Conv<pads=[1,1], strides=[2]>(x, w)",
        (2, 1, 3, 2, 2),
    ),
    "every-third-frame": (
        WAVE,
        REST,
        "w = Constant<value=float[1,1,1] {2.0}>()  y = Conv<strides=[3]>(x, w)",
        (3, 0, 1, 3, 3),
    ),
    "long-padding": (WAVE, REST, PAIR + "y = Conv<pads=[3,4]>(x, w)", (1, -2, 2, 1, 1)),
    "two-convs": (
        WAVE,
        REST,
        TRIPLE + "h = Conv<pads=[1,1], strides=[2]>(x, w)  y = Conv<pads=[1,1], strides=[2]>(h, w)",
        (4, 3, 7, 4, 4),
    ),
    "conv-transposed": (
        WAVE,
        REST,
        TRIPLE + "y = ConvTranspose<strides=[2]>(x, w)",
        (Fraction(1, 2), 0, 2, 1, 1),
    ),
    "residual": (
        WAVE,
        "float[batch,1,time] y",
        TRIPLE + "h = Conv<pads=[1,1]>(x, w)  y = Add(x, h)",
        (1, 1, 3, 2, 1),
    ),
    "branches-of-other-reach": (
        WAVE,
        "float[batch,2,time] y",
        TRIPLE + "h = Conv<pads=[2,0]>(x, w)  k = Conv<pads=[0,2]>(x, w)  y = Concat<axis=1>(h, k)",
        (1, 2, 5, 3, 1),
    ),
    "max-pool": (
        WAVE,
        REST,
        "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)",
        (2, 1, 3, 2, 2),
    ),
    "max-pool-to-the-end": (
        WAVE,
        REST,
        "y = MaxPool<kernel_shape=[3], strides=[2], ceil_mode=1>(x)",
        (2, 2, 3, 3, 2),
    ),
    "mean-pool": (WAVE, REST, "y = AveragePool<kernel_shape=[2]>(x)", (1, 1, 2, 2, 1)),
    "mean-pool-without-padding": (
        WAVE,
        REST,
        "y = AveragePool<kernel_shape=[3], pads=[1,1]>(x)",
        (1, 1, 3, 2, 1),
    ),
    "mean-pool-with-padding": (
        WAVE,
        REST,
        "y = AveragePool<kernel_shape=[3], pads=[1,1], count_include_pad=1>(x)",
        (1, 1, 3, 2, 1),
    ),
    "pad-before": (
        X,
        "float[batch,rest,4] y",
        "p = Constant<value_ints=[0,1,0,0,0,0]>()  y = Pad(x, p)",
        (1, -1, 1, 1, 1),
    ),
    "pad-behind": (
        X,
        "float[batch,rest,4] y",
        "p = Constant<value_ints=[0,2]>()  a = Constant<value_ints=[1]>()"
        "  v = Constant<value_float=0.5>()  y = Pad(x, p, v, a)",
        (1, 0, 1, 1, 1),
    ),
    "without-the-first": (
        X,
        "float[batch,rest,4] y",
        ENDS + "y = Slice(x, one, end, one)",
        (1, 1, 1, 2, 1),
    ),
    "without-the-last-two": (
        X,
        "float[batch,rest,4] y",
        ENDS + "y = Slice(x, zero, m2, one)",
        (1, 0, 1, 3, 1),
    ),
    "every-second-frame": (
        X,
        "float[batch,rest,4] y",
        ENDS + "y = Slice(x, one, end, one, two)",
        (2, 1, 1, 2, 2),
    ),
    "differences": (
        X,
        "float[batch,rest,4] y",
        ENDS + "a = Slice(x, one, end, one)  b = Slice(x, zero, m1, one)  y = Sub(a, b)",
        (1, 1, 2, 2, 1),
    ),
    "sum": (X, "float[batch,time,4] y", SUM + "y = CumSum(x, a)", (1, 0, EVERYTHING, 1, 1)),
    "sum-before": (
        X,
        "float[batch,time,4] y",
        SUM + "y = CumSum<exclusive=1>(x, a)",
        (1, 0, EVERYTHING, 1, 1),
    ),
    "places": (
        "float[time] x",
        "float[time] y",
        "n = Shape(x)  k = Squeeze(n)  zero = Constant<value_int=0>()"
        "  one = Constant<value_int=1>()  t = Range(zero, k, one)  f = Cast<to=1>(t)"
        "  y = Add(x, f)",
        (1, 0, 1, 1, 1),
    ),
    "rows": (
        X,
        "float[batch,time,2] y",
        "to = Constant<value_ints=[-1,4]>()  s = Shape<start=0, end=2>(x)"
        "  two = Constant<value_ints=[2]>()  back = Concat<axis=0>(s, two)"
        "  w = Constant<value=float[4,2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}>()"
        "  r = Reshape(x, to)  p = Gemm(r, w)  y = Reshape(p, back)",
        (1, 0, 1, 1, 1),
    ),
    "running-maximum": (
        "float[time,4] x",
        "float[time,4] y",
        f"least = Constant<value=float[4] {{0.0, 0.0, 0.0, 0.0}}>()  {MAXIMUM}",
        (1, 0, EVERYTHING, 1, 1),
    ),
    "running-maximum-from-below": (
        "float[time,4] x",
        "float[time,4] y",
        f"least = Constant<value=float[4] {{-9.0, -9.0, -9.0, -9.0}}>()  {MAXIMUM}",
        (1, 0, EVERYTHING, 1, 1),
    ),
    "gru-of-a-strided-conv": (
        "float[batch,4,time] x",
        "float[rest,1,batch,3] y",
        "k = Constant<value=float[4,1,3] {1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 1.0, 0.0, 1.0"
        ", 1.0, 1.0, 1.0}>()"
        "  c = Conv<group=4, pads=[1,1], strides=[2]>(x, k)  n = Transpose<perm=[0,2,1]>(c)  "
        + GRU.replace("(x)", "(n)")
        + "y = GRU<hidden_size=3>(xt, w, r)",
        (2, 1, EVERYTHING, 2, 2),
    ),
}


@pytest.mark.parametrize("name", STREAMED)
def test_neighbours_stream_exactly_at_every_end(tmp_path: Path, name: str) -> None:
    inputs, outputs, body, timing = STREAMED[name]
    src, dst = save_text(tmp_path / "src.onnx", inputs, outputs, body), tmp_path / "dst.onnx"
    contract = rnnx.to_streaming(src, dst)
    out = contract.outputs[0]
    found = (out.stride, out.lookahead, out.receptive_field)
    assert (*found, contract.first_chunk, contract.chunk_multiple) == timing
    for frames in range(5, 5 + 2 * contract.chunk_multiple):
        hold_chunks(src, dst, [frames])
        hold_chunks(src, dst, [1] * frames)
    hold_chunks(src, dst, [3, 1, 0, 7, 2, 2, 5])


def recogniser(p: Any, x: Tensor) -> Any:
    """Positions, a strided front end, a recurrent layer, running sums, a head over rows."""
    x = x + p["table"](torch.arange(x.shape[1]))
    y = p["front"](x.transpose(1, 2)).relu().transpose(1, 2)
    z, h = p["gru"](y)
    rows = p["head"](z.reshape(-1, 6)).reshape(z.shape[0], z.shape[1], 3)
    return rows, z.cumsum(1), z[:, -1], h[-1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(5)
    module = Network(
        recogniser,
        front=nn.Conv1d(4, 5, 5, stride=2, padding=2),
        table=nn.Embedding(99, 4),
        gru=nn.GRU(5, 6, batch_first=True),
        head=nn.Linear(6, 3),
    )
    path, axes = tmp_path_factory.mktemp("neighbours") / "model.onnx", {0: "batch", 1: "time"}
    args = (torch.randn(2, 9, 4),)
    rnnx.export(module, args, path, dynamic_shapes={"x": axes}, streaming=True)
    return module.eval(), path


@settings(max_examples=15)
@given(
    chunks=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    batch=st.integers(1, 3),
)
def test_an_exported_front_end_streams_to_its_last_frame(
    exported: tuple[nn.Module, Path], chunks: list[int], batch: int
) -> None:
    module, path = exported
    x = torch.randn(batch, sum(chunks), 4)
    stream = rnnx.Stream(path, batch=batch)
    parts: list[Any] = [stream.feed(part.numpy()) for part in x.split(chunks, 1)]
    parts.append(stream.flush())
    found = [
        parts[-1][port.name]
        if port.time_axis is None
        else np.concatenate([part[port.name] for part in parts], port.time_axis)
        for port in stream.model.contract.outputs
    ]
    for value, expected in zip(found, torch_run(module, x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=ATOL)
