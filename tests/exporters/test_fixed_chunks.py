"""Streaming graphs of fixed chunks: every shape a number, and the same frames as offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

import rnnx
from exportable import SIZES
from pieces import Arrays, hold_all, joined, named
from random_nets import networks, save
from rnnx_runtime.contract import METADATA_KEY
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]

ATOL = 2e-5
X, Y = "float[batch,time,4] x", "float[batch,rest,features] y"
GRU = """
    {out}t = Transpose<perm=[2,0,1]>({x})  {out}n, {out}h = GRU<hidden_size=3>({out}t, W, R)
    {out}s = Squeeze({out}n, one)  {out} = Transpose<perm=[1,0,2]>({out}s)
"""
ONE = "one = Constant<value_ints=[1]>()"
FIRST = "c = Transpose<perm=[0,2,1]>(x)"  # [batch, features, time]
BACK = "y = Transpose<perm=[0,2,1]>(z)"
SCAN = """
    s = Shape<start=0, end=1>(x)  four = Constant<value_ints=[4]>()
    d = Concat<axis=0>(s, four)  h = Expand(third, d)  t = Transpose<perm=[1,0,2]>(x)
    last, z = Scan<num_scan_inputs=1, body=body (float[b,4] a, float[b,4] f)
    => (float[b,4] n, float[b,4] g) {
    e = Mul(a, f)  v = Add(e, f)  n = Tanh(v)  g = Identity(n) }>(h, t)
    y = Transpose<perm=[1,0,2]>(z)
"""

# inputs, outputs, the graph
NETWORKS: dict[str, tuple[str, str, str]] = {
    "GRU": (X, Y, ONE + "\n" + FIRST + GRU.format(x="c", out="y")),
    "look-ahead and GRU": (
        X,
        Y,
        f"{ONE}\n{FIRST}\nz = Conv<pads=[1,2]>(c, C)\n" + GRU.format(x="z", out="y"),
    ),
    "look-aheads of a residual": (
        X,
        Y,
        f"{FIRST}\na = Conv<pads=[2,1]>(c, C)\nb = Conv<pads=[0,3]>(a, C)\nz = Add(c, b)\n{BACK}",
    ),
    "U-net": (
        X,
        Y,
        f"{ONE}\n{FIRST}\nd = Conv<strides=[2], pads=[1,1]>(c, C)\n"
        "u = ConvTranspose<strides=[2], pads=[1,1]>(d, C)\nz = Add(c, u)\n"
        + GRU.format(x="z", out="y"),
    ),
    "last frame": (
        X,
        f"{Y}, float[batch,features] last",
        f"{FIRST}\nz = Conv<pads=[1,2]>(c, C)\n{BACK}\ni = Constant<value_int=-1>()\n"
        "last = Gather<axis=1>(y, i)",
    ),
    "running sum": (
        X,
        Y,
        f"{FIRST}\nz = Conv<pads=[1,2]>(c, C)\nt = Transpose<perm=[0,2,1]>(z)\n"
        "axis = Constant<value_int=1>()\ny = CumSum(t, axis)",
    ),
    "running mean": (
        X,
        Y,
        SIZES + "  n = Squeeze(t, zero)  start = Constant<value_int=1>()  end = Add(n, start)"
        "  r = Range(start, end, start)  q = Unsqueeze(r, one)  f = Cast<to=1>(q)"
        "  sum = CumSum(x, start)  y = Div(sum, f)",
    ),
    "carry of a Scan": (X, Y, SCAN),
    "padded maximum": (X, Y, f"{FIRST}\nz = MaxPool<kernel_shape=[3], pads=[1,1]>(c)\n{BACK}"),
    "mean without padding": (
        X,
        Y,
        f"{FIRST}\nz = AveragePool<kernel_shape=[3], pads=[1,1], count_include_pad=0>(c)\n{BACK}",
    ),
    "zeros before": (
        X,
        Y,
        f"p = Constant<value_ints=[0,2,0,0,1,0]>()\nd = Pad(x, p)\nc = Transpose<perm=[0,2,1]>(d)\n"
        f"{ONE}" + GRU.format(x="c", out="y"),
    ),
    "several inputs": (
        f"{X}, float[batch,time,4] x2, float[batch,4] gain",
        Y,
        f"{ONE}\n{FIRST}\nz = Conv<pads=[0,3]>(c, C)\nw = Transpose<perm=[0,2,1]>(z)\n"
        "a = Add(w, x2)\ng = Unsqueeze(gain, one)\ny = Mul(a, g)",
    ),
}
STRIDES = {"U-net": 2}


def offline_file(path: Path, name: str) -> Path:
    """The network as a graph for whole sequences, its weights drawn anew for each name."""
    inputs, outputs, body = NETWORKS[name]
    lines = "\n".join(line.strip() for line in body.replace("  ", "\n").splitlines())
    head = '<ir_version: 10, opset_import: ["": 18]>'
    model = onnx.parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {lines} }}")
    rng = np.random.default_rng(len(name))
    shapes = {"C": (4, 4, 4), "W": (1, 9, 4), "R": (1, 9, 3), "third": ()}
    for key, shape in shapes.items():
        value = rng.normal(0, 0.5, shape).astype(np.float32)
        if any(key in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(value, key))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fixed")


def fixed(folder: Path, name: str, chunk: int) -> tuple[Path, Path]:
    """The offline file of a network and its artifact of fixed chunks, written once."""
    src, dst = folder / f"{name}.onnx", folder / f"{name} {chunk}.onnx"
    if not dst.exists():
        rnnx.to_streaming(offline_file(src, name), dst, chunk=chunk)
    return src, dst


def whole(src: Path, feeds: Arrays) -> Arrays:
    """All outputs by name, in onnxruntime as it comes."""
    session = ort.InferenceSession(src, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def cut(contract: rnnx.Contract, feeds: Arrays, start: int, stop: int) -> Arrays:
    return {
        port.name: feeds[port.name]
        if port.time_axis is None
        else feeds[port.name].take(range(start, stop), port.time_axis)
        for port in contract.inputs
    }


def fed(stream: rnnx.Stream, feeds: Arrays, lengths: Sequence[int]) -> Arrays:
    """What comes out in all; on the way the stream is given up for a clone, then for a copy."""
    contract, start, pieces = stream.model.contract, 0, []
    for turn, length in enumerate(lengths):
        pieces.append(stream.feed(cut(contract, feeds, start, start + length)))
        start += length
        if turn % 3 == 0:
            stream = stream.clone()
        if turn % 3 == 1:
            twin = stream.model.stream()
            twin.restore(stream.snapshot())
            stream = twin
    pieces.append(stream.flush())
    return joined(contract, [named(contract, piece) for piece in pieces])


def hold(found: Arrays, expected: Arrays) -> None:
    hold_all(found, expected, ATOL)


def free_shapes(path: Path) -> list[str]:
    """The wires of a graph whose shape is not written as numbers."""
    graph = onnx.load(path).graph
    told = {
        value.name: value.type.tensor_type.shape.dim
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    wires = [value.name for value in (*graph.input, *graph.output)]
    wires += [name for node in graph.node for name in node.output if name]
    return [
        name
        for name in wires
        if name not in told or not all(dim.HasField("dim_value") for dim in told[name])
    ]


@pytest.mark.parametrize("chunk", [2, 6])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_streams_in_fixed_chunks(folder: Path, name: str, chunk: int) -> None:
    src, dst = fixed(folder, name, chunk)
    assert free_shapes(dst) == []
    model, rng = rnnx.Model(dst), np.random.default_rng(chunk)
    assert all(port.dims[port.time_axis or 0] == chunk for port in model.contract.inputs[:1])
    stride = STRIDES.get(name, 1)
    for frames in (1, chunk - 1, chunk, chunk + 1, 29):
        frames = -(-frames // stride) * stride
        feeds = random_inputs(model.contract, rng, batch=1, frames=frames)
        expected = whole(src, feeds)
        for lengths in ([frames], [1] * frames, [frames // 2, 0, frames - frames // 2]):
            hold(fed(model.stream(), feeds, lengths), expected)


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    steps=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
)
def test_chunk_length_and_feeding_do_not_matter(
    folder: Path, name: str, steps: int, lengths: list[int]
) -> None:
    stride = STRIDES.get(name, 1)
    src, dst = fixed(folder, name, stride * steps)
    model = rnnx.Model(dst)
    lengths = [stride * length for length in lengths]
    feeds = random_inputs(model.contract, np.random.default_rng(0), batch=1, frames=sum(lengths))
    hold(fed(model.stream(), feeds, lengths), whole(src, feeds))


@settings(max_examples=25, derandomize=True)
@given(net=networks(), seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 5))
def test_a_random_network_streams_in_fixed_chunks(net: Any, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as name:
        src, dst = save(net, Path(name) / "src.onnx"), Path(name) / "dst.onnx"
        multiple = streamed(src, dst).chunk_multiple
        contract = rnnx.to_streaming(src, dst, chunk=multiple * steps)
        assert free_shapes(dst) == []
        model = rnnx.Model(dst)
        for frames in (net.lengths()[0], int(rng.choice(net.lengths()))):
            feeds = random_inputs(contract, rng, batch=1, frames=frames)
            zeros = {
                value.name: np.zeros([d.dim_value or 1 for d in value.type.tensor_type.shape.dim])
                for value in net.inputs
                if value.name not in feeds
            }
            expected = whole(src, feeds | {k: v.astype(np.float32) for k, v in zeros.items()})
            middle = int(rng.integers(0, frames + 1))
            hold(fed(model.stream(), feeds, [middle, frames - middle]), expected)


def streamed(src: Path, dst: Path) -> rnnx.Contract:
    """The artifact; networks that are dead by chance are left out."""
    try:
        return rnnx.to_streaming(src, dst)
    except rnnx.NotStreamableError as error:
        if "a changed frame changes no output" in str(error):
            reject()
        raise


def plain_loop(path: Path, feeds: Arrays, name: str) -> Array:
    """An output in onnxruntime alone, as a device would run it: the metadata says what to skip."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    states = {
        f"{state['name']}_in": np.full(_full(session, f"{state['name']}_in"), state["fill"], "f")
        for state in record["states"]
    }
    chunk, pieces = record["chunk"], []
    for call in range(feeds["x"].shape[1] // chunk):
        masks = {
            mask["name"]: _mask(_full(session, mask["name"]), call, mask["skip"])
            for mask in record["masks"]
        }
        part = {"x": feeds["x"][:, call * chunk : (call + 1) * chunk]}
        outputs = [node.name for node in session.get_outputs()]
        results = dict(zip(outputs, session.run(outputs, part | states | masks), strict=True))
        states = {key: results[key.replace("_in", "_out")] for key in states}
        pieces.append(results[name])
    (output,) = (port for port in record["outputs"] if port["name"] == name)
    return np.concatenate(pieces, output["time_axis"])[:, output["skip"] :]


def _full(session: ort.InferenceSession, name: str) -> list[int]:
    return next(node.shape for node in session.get_inputs() if node.name == name)


def _mask(shape: list[int], call: int, skip: int) -> Array:
    places = np.arange(call * shape[0], (call + 1) * shape[0])
    return (places >= skip).reshape(shape)


@pytest.mark.parametrize("name", ["GRU", "look-ahead and GRU", "zeros before", "running sum"])
def test_onnxruntime_alone_gives_the_same(folder: Path, name: str) -> None:
    src, dst = fixed(folder, name, 6)
    x = np.random.default_rng(0).normal(size=(1, 60, 4)).astype(np.float32)
    found, expected = plain_loop(dst, {"x": x}, "y"), whole(src, {"x": x})["y"]
    assert found.shape[1] > 40
    hold({"y": found}, {"y": expected[:, : found.shape[1]]})


def test_a_chunk_that_strides_do_not_divide_is_refused(tmp_path: Path) -> None:
    src, dst = offline_file(tmp_path / "src.onnx", "U-net"), tmp_path / "dst.onnx"
    with pytest.raises(rnnx.NotStreamableError, match="5 frames is no multiple of 2") as caught:
        rnnx.to_streaming(src, dst, chunk=5)
    assert caught.value.hint == "Take a multiple of 2."
    for chunk in (0, -2):
        with pytest.raises(rnnx.NotStreamableError, match=f"{chunk} frames"):
            rnnx.to_streaming(src, dst, chunk=chunk)
    assert not dst.exists()


def test_fixed_chunks_are_of_a_stream(tmp_path: Path) -> None:
    model, path = torch.nn.GRU(4, 3, batch_first=True), tmp_path / "m.onnx"
    with pytest.raises(rnnx.InputError, match="chunk fixes the chunks of a stream"):
        rnnx.export(model, (torch.zeros(1, 5, 4),), path, chunk=4)
    assert not path.exists()


def test_one_sequence_is_what_a_stream_of_fixed_chunks_holds(folder: Path) -> None:
    _, dst = fixed(folder, "GRU", 2)
    with pytest.raises(rnnx.InputError, match="batch cannot be 2"):
        rnnx.Stream(dst, batch=2)
    with pytest.raises(rnnx.InputError, match="shape"):
        rnnx.Stream(dst).feed(np.zeros((2, 2, 4), np.float32))


def test_frames_that_wait_add_to_the_delay(folder: Path) -> None:
    """Three frames of a convolution are too early for the GRU to begin in the middle of a chunk."""
    _, dst = fixed(folder, "look-ahead and GRU", 6)
    port = rnnx.load_contract(dst).outputs[0]
    assert (port.lookahead, port.delay, port.skip) == (2, 6, 6)
    _, dst = fixed(folder, "look-aheads of a residual", 6)
    port = rnnx.load_contract(dst).outputs[0]
    assert (port.lookahead, port.delay) == (4, 4)
    stream, x = rnnx.Stream(dst), np.ones((1, 6, 4), np.float32)
    assert [stream.feed(x).shape[1] for _ in range(3)] == [2, 6, 6]


def test_a_chunk_that_fails_leaves_the_stream_as_it_was(tmp_path: Path) -> None:
    """Ids of which one has no row, in the second chunk of a feed of three."""
    text = """<ir_version: 10, opset_import: ["": 18]>
        g (int64[batch,time] ids) => (float[batch,2,time] y, float[batch,2] last) {
            rows = Gather(table, ids)
            axis = Constant<value_ints=[1]>()
            x = Unsqueeze(rows, axis)
            y = Conv<pads=[0,1]>(x, w)
            i = Constant<value_int=-1>()
            last = Gather<axis=2>(y, i)
        }"""
    model = onnx.parser.parse_model(text)
    constants = {"table": np.array([3, -1, 2], "f"), "w": np.ones((2, 1, 2), "f")}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    src, dst = tmp_path / "src.onnx", tmp_path / "dst.onnx"
    onnx.save(model, src)
    rnnx.to_streaming(src, dst, chunk=2)
    ids = np.array([[0, 2, 1, 1, 0, 2, 2, 1, 0]])
    stream = rnnx.Stream(dst)
    pieces = [stream.feed(ids[:, :3])]
    before = stream.snapshot()
    for _ in range(2):
        with pytest.raises(rnnx.InputError, match="onnxruntime failed"):
            stream.feed(np.array([[1, 2, 9, 0, 0]]))
        assert stream.snapshot() == before
    pieces += [stream.feed(ids[:, 3:]), stream.flush()]
    expected = whole(src, {"ids": ids})
    hold({"y": np.concatenate([piece["y"] for piece in pieces], 2)}, {"y": expected["y"]})
    hold({"last": pieces[-1]["last"]}, {"last": expected["last"]})


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stream_of_fixed_chunks_runs_whole_sequences_and_is_checked(
    tmp_path: Path, chunk: int
) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0]

    torch.manual_seed(0)
    module, x = Layer(), torch.randn(1, 10, 4)
    rnnx.export(module, (torch.randn(2, 9, 4),), tmp_path / "offline.onnx")
    rnnx.to_streaming(tmp_path / "offline.onnx", tmp_path / "fixed.onnx", chunk=chunk)
    found = rnnx.Model(tmp_path / "fixed.onnx").run(x.numpy())
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert rnnx.check(tmp_path / "fixed.onnx", module).passed
