"""Snapshots and contracts that lie: an RnnxError at the end, at once, and nothing worse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagging import lagging
from rnnx_runtime import ArtifactError, Model, RnnxError, Stream, StreamError
from rnnx_runtime.contract import METADATA_KEY
from rnnx_runtime.snapshot import pack, unpack

NAMES = ("frames", "scaled", "rates", "ids")


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return lagging(tmp_path_factory.mktemp("hostile"), request.param)[1]


def feeds(model: Model, frames: int) -> dict[str, Any]:
    return {
        port.name: np.ones(port.shape(batch=1, frames=frames), port.dtype)
        for port in model.contract.inputs
    }


def begun(model: Model, frames: int) -> Stream:
    stream = model.stream()
    stream.feed(feeds(model, frames))
    return stream


@given(st.data(), st.integers(0, 900))
def test_damaged_bytes_are_refused_and_change_nothing(
    model: Model, data: st.DataObject, frames: int
) -> None:
    stream = begun(model, frames)
    whole = stream.snapshot()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), whole[:place], whole + b"\0"):
        with pytest.raises(StreamError):
            stream.restore(damaged)
        assert stream.snapshot() == whole


def test_a_snapshot_of_another_artifact_is_refused(tmp_path: Path) -> None:
    streams = [begun(lagging(tmp_path, name)[1], 5) for name in NAMES]
    for stream in streams:
        for other in streams:
            if other is not stream:
                with pytest.raises(StreamError, match="another artifact"):
                    stream.restore(other.snapshot())


@pytest.mark.parametrize("frames", [0, 1, 5, 399, 400, 450, 561])
def test_frames_that_no_stream_would_hold_are_refused(model: Model, frames: int) -> None:
    """The position says how many frames are held, and whether the network has run."""
    taken = unpack(begun(model, frames).snapshot())
    others = [*range(frames), *range(frames + 1, frames + 400), -1, -frames - 1, 10**30]
    stream = model.stream()
    accepted = []
    for position in others:
        forged = dataclasses.replace(taken, position=position)
        try:
            stream.restore(pack(forged))
        except StreamError:
            continue
        accepted.append(position)
    first, multiple = model.contract.first_chunk, model.contract.chunk_multiple
    same = [p for p in others if frames >= first <= p and (p - frames) % multiple == 0]
    assert accepted == same


@settings(max_examples=50)
@given(data=st.data())
def test_a_forged_memory_is_refused_or_runs(model: Model, data: st.DataObject) -> None:
    taken = unpack(begun(model, data.draw(st.sampled_from([0, 3, 450]))).snapshot())
    arrays = dict(taken.arrays)
    shapes = st.lists(st.integers(0, 5), max_size=4)
    for name in data.draw(st.lists(st.sampled_from([*arrays, "held.x", "last", "z"]), max_size=3)):
        arrays.pop(name, None)
        if data.draw(st.booleans()):
            arrays[name] = np.zeros(data.draw(shapes), data.draw(st.sampled_from(["f4", "i8"])))
    position = data.draw(st.just(taken.position) | st.integers(-3, 10**18))
    forged = dataclasses.replace(taken, arrays=arrays, position=position)
    stream = model.stream()
    try:
        stream.restore(pack(forged))
        stream.feed(feeds(model, 7))
        stream.flush()
    except RnnxError:
        return
    assert stream.position == position + 7


huge = st.sampled_from([-(1 << 62), -(1 << 25), -1, 0, 1, 2, 3, 7, 1 << 25, 1 << 39, 1 << 62])
steps = st.lists(st.tuples(huge, huge, huge).map(list), max_size=3)
counts = st.lists(steps, min_size=1, max_size=2)
ratios = st.builds("{}/{}".format, huge, huge) | st.sampled_from(["160", "2", "1e99999999", "1/2"])
PORT_LIES = {"stride": ratios, "count": counts, "length": counts, "delay": huge, "skip": huge}
LIES = {
    "outputs": PORT_LIES,
    "masks": PORT_LIES,
    "states": {"start_frames": huge, "time_axis": huge, "fill": st.floats(), "kind": st.text()},
}


@settings(max_examples=60)
@given(data=st.data())
def test_a_lying_contract_is_refused_or_runs(
    model: Model, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    record = json.loads(model.contract.to_json())
    chunks = data.draw(st.dictionaries(st.sampled_from(["first_chunk", "chunk_multiple"]), huge))
    record |= chunks
    for kind in data.draw(st.lists(st.sampled_from([k for k in LIES if record[k]]), max_size=2)):
        field = data.draw(st.sampled_from(sorted(LIES[kind])))
        data.draw(st.sampled_from(record[kind]))[field] = data.draw(LIES[kind][field])
    path = with_contract(model, record, tmp_path_factory.mktemp("lying") / "lying.onnx")
    try:
        stream = Stream(path)
        for frames in (1, 450, 8):
            stream.feed(feeds(model, frames))
        stream.flush()
    except RnnxError:
        return
    assert stream.position == 459


def with_contract(model: Model, record: dict[str, Any], path: Path) -> Path:
    graph = onnx.load(model.path)
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(record)})
    onnx.save(graph, path)
    return path


def test_a_cache_of_another_length_than_said_is_refused(model: Model, tmp_path: Path) -> None:
    record = json.loads(model.contract.to_json())
    state = record["states"][0]
    state["dims"][state["time_axis"]] += 1
    stream = Stream(with_contract(model, record, tmp_path / "longer.onnx"))
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"state s000 is .* after the first run"):
            stream.feed(feeds(model, 500))
    assert stream.position == 0


def test_a_tail_that_would_never_come_is_refused(model: Model, tmp_path: Path) -> None:
    record = json.loads(model.contract.to_json())
    port = record["outputs"][0]
    port["length"] = (
        [[[chain[0][0], 1 << 39, chain[0][2]] for chain in port["length"]]]
        if (port["length"][0])
        else [[[1, 1 << 39, 1]]]
    )
    with pytest.raises(ArtifactError, match="damaged"):
        Stream(with_contract(model, record, tmp_path / "endless.onnx"))
