"""Random networks, streamed in random chunks, against their own whole runs in plain onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import rnnx
from net_breaking import BREAKING
from net_wires import Net
from pieces import Arrays, hold_all, joined, named
from random_nets import broken_networks, networks, save
from rnnx_exporters import memory, streaming
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]

TOLERANCE = 2e-5
LOUD = 1e-4


class Offline:
    """The network as it is, in plain onnxruntime."""

    def __init__(self, path: Path, contract: rnnx.Contract) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.contract = contract

    def __call__(self, feeds: Mapping[str, Array], batch: int) -> Arrays:
        """All outputs by name; initial states that are inputs of the graph are zero."""
        zeros = {
            node.name: np.zeros([d if isinstance(d, int) else batch for d in node.shape], "f")
            for node in self.session.get_inputs()
            if node.name not in feeds
        }
        names = [port.name for port in self.contract.outputs]
        return dict(zip(names, self.session.run(names, {**feeds, **zeros}), strict=True))


def parts(contract: rnnx.Contract, feeds: Arrays, chunks: Sequence[int]) -> Iterator[Arrays]:
    """The inputs, cut up along time."""
    start = 0
    for size in chunks:
        yield {
            port.name: feeds[port.name]
            if port.time_axis is None
            else feeds[port.name].take(range(start, start + size), port.time_axis)
            for port in contract.inputs
        }
        start += size


def hold_streams(net: Net, model: rnnx.Model, offline: Offline, seed: int) -> float:
    """Streams in random chunks, carried on by copies, against whole runs; the worst difference."""
    rng, contract, worst = np.random.default_rng(seed), model.contract, 0.0
    lengths = net.lengths()
    free = any(port.batch_axis is not None for port in contract.inputs)
    for batch in (1, 3) if free else (1,):
        for frames in (lengths[0], *rng.choice(lengths, 2).tolist(), lengths[-1]):
            feeds = random_inputs(contract, rng, batch=batch, frames=frames)
            expected = offline(feeds, batch)
            for chunks in chunkings(frames, rng):
                pieces = feed_all(model.stream(batch=batch), feeds, chunks, rng)
                worst = max(worst, hold_all(joined(contract, pieces), expected, TOLERANCE))
    return worst


def chunkings(frames: int, rng: np.random.Generator) -> Iterator[Sequence[int]]:
    """Frame by frame at first, all at once, and at random."""
    single = min(frames, 40)
    yield [1] * single + [frames - single] * (frames > single)
    yield [frames]
    ends = np.unique(rng.integers(0, frames, rng.integers(1, 9)))
    yield np.diff([0, *ends, frames]).tolist()


def feed_all(
    stream: rnnx.Stream, feeds: Arrays, chunks: Sequence[int], rng: np.random.Generator
) -> list[Arrays]:
    """What comes out; on the way the stream is given up for one restored, and for a clone."""
    contract = stream.model.contract
    moves, pieces = rng.integers(0, len(chunks) + 1, 2), []
    for i, part in enumerate(parts(contract, feeds, chunks)):
        if i == moves[0]:
            stream = moved(stream)
        if i == moves[1]:
            stream = stream.clone()
        pieces.append(named(contract, stream.feed(part)))
    stream = moved(stream) if moves[0] == len(chunks) else stream
    return [*pieces, named(contract, stream.flush())]


def moved(stream: rnnx.Stream) -> rnnx.Stream:
    fresh = rnnx.Stream(stream.model, batch=stream.batch)
    fresh.restore(stream.snapshot())
    return fresh


def hold_reach(net: Net, model: rnnx.Model, offline: Offline, seed: int) -> None:
    """A changed input frame changes no output frame that says it does not see it."""
    rng, contract = np.random.default_rng(seed), model.contract
    frames = int(rng.choice(net.lengths()))
    at = int(rng.integers(frames))
    feeds = random_inputs(contract, rng, batch=1, frames=frames)
    loud = {port.name: changed(port, feeds[port.name], at) for port in contract.inputs}
    quiet, other = offline(feeds, 1), offline(loud, 1)
    for port in contract.outputs:
        if port.time_axis is None:
            continue
        different = np.moveaxis(np.abs(quiet[port.name] - other[port.name]), port.time_axis, 0)
        scale = max(1.0, float(np.abs(quiet[port.name]).max(initial=0)))
        for frame in np.flatnonzero(different.max(tuple(range(1, different.ndim))) > LOUD * scale):
            first, last = port.sees(int(frame))
            assert first <= at <= last, (port.name, int(frame), at, (first, last))


def changed(port: rnnx.Port, value: Array, at: int) -> Array:
    if port.time_axis is None:
        return value
    value = value.copy()
    frame = np.moveaxis(value, port.time_axis, 0)[at]
    frame[...] = (frame + 1) % 5 if value.dtype.kind == "i" else frame + 3
    return value


def converted(src: Path, dst: Path) -> rnnx.Contract:
    """The streaming form of a network; one that is dead by chance is left out."""
    try:
        return rnnx.to_streaming(src, dst)
    except rnnx.NotStreamableError as error:
        if "network is dead" in str(error.hint):
            reject()
        raise


def hold_net(net: Net, seed: int) -> float:
    """The property of every network that streams; the worst difference."""
    with TemporaryDirectory() as folder:
        src, dst = save(net, Path(folder) / "src.onnx"), Path(folder) / "dst.onnx"
        contract = converted(src, dst)
        model, offline = rnnx.Model(dst), Offline(src, contract)
        hold_reach(net, model, offline, seed)
        return hold_streams(net, model, offline, seed)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, derandomize=True)
@given(net=networks(), seed=SEEDS)
def test_a_random_network_streams_as_it_runs(net: Net, seed: int) -> None:
    hold_net(net, seed)


@pytest.mark.full
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(net=networks(most=12), seed=SEEDS)
def test_a_larger_random_network_streams_as_it_runs(net: Net, seed: int) -> None:
    hold_net(net, seed)


@pytest.mark.parametrize("name", BREAKING)
@settings(max_examples=5, derandomize=True)
@given(data=st.data())
def test_what_cannot_stream_is_refused_wherever_it_stands(name: str, data: st.DataObject) -> None:
    block, message, hint = BREAKING[name]
    net = data.draw(broken_networks(block))
    with TemporaryDirectory() as folder:
        src = save(net, Path(folder) / "src.onnx")
        with pytest.raises(rnnx.NotStreamableError, match=message) as caught:
            rnnx.to_streaming(src, Path(folder) / "dst.onnx")
        assert re.search(hint, str(caught.value.hint))
        assert list(Path(folder).iterdir()) == [src]


def convolved() -> Net:
    """Two convolutions, each of which sees a frame before and one behind."""
    net = Net(np.random.default_rng(0))
    net.inputs.append(net.value("x", ["batch", 3, "time"]))
    weights = [net.weight(3, 3, 3), net.weight(3)]
    y = net.op("Conv", net.op("Conv", "x", *weights, pads=[1, 1]), *weights, pads=[1, 1])
    net.outputs.append(net.value(y, ["batch", 3, "time"]))
    return net


def test_a_forgotten_mask_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Memory, "_masked", lambda _, node, value, *rest, **more: value)
    with pytest.raises(rnnx.NotStreamableError, match="differs from the whole sequence") as caught:
        hold_net(convolved(), 0)
    assert "fault in rnnx" in str(caught.value.hint)
    monkeypatch.setattr(streaming, "prove_streaming", lambda *_: None)
    with pytest.raises(AssertionError):
        hold_net(convolved(), 0)


@pytest.mark.parametrize("wrong", [{"lookahead": 1}, {"receptive_field": 4}])
def test_a_wrong_reach_is_seen(tmp_path: Path, wrong: dict[str, int]) -> None:
    net = convolved()
    src, dst = save(net, tmp_path / "src.onnx"), tmp_path / "dst.onnx"
    contract = rnnx.to_streaming(src, dst)
    model, offline = rnnx.Model(dst), Offline(src, contract)
    hold_reach(net, model, offline, 0)
    outputs = (replace(contract.outputs[0], **wrong),)
    model.contract = replace(contract, outputs=outputs)
    with pytest.raises(AssertionError):
        hold_reach(net, model, offline, 0)
