from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import gru_artifact
from oracles import gru_in_float64
from rnnx_runtime import ArtifactError, InputError, Model, Stream, StreamError
from rnnx_runtime.contract import METADATA_KEY
from running_sums import running_sum

GRU_TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # float32 against float64


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("stream") / "gru.onnx"
    gru_artifact(path)
    return Model(path)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def feed_in_chunks(stream: Stream, x: Any, lengths: list[int]) -> Any:
    assert sum(lengths) == x.shape[1]
    chunks = np.split(x, np.cumsum(lengths)[:-1], axis=1)
    return np.concatenate([stream.feed(chunk) for chunk in chunks], axis=1)


chunkings = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(any)


@given(lengths=chunkings, batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_any_chunking_equals_the_whole(
    gru: Model, lengths: list[int], batch: int, seed: int
) -> None:
    x = noise(batch, sum(lengths), 3, seed=seed)
    stream = gru.stream(batch=batch)
    found = feed_in_chunks(stream, x, lengths)
    assert np.array_equal(found, gru.run(x))  # bit for bit
    np.testing.assert_allclose(found, gru_in_float64(Path(gru.path), x), **GRU_TOLERANCE)
    assert stream.position == sum(lengths)
    assert stream.flush().shape == (batch, 0, 4)


def test_more_chunk_lengths_than_are_kept(gru: Model) -> None:
    lengths = [*range(1, 14), *range(13, 0, -1)]
    x = noise(1, sum(lengths), 3)
    assert np.array_equal(feed_in_chunks(gru.stream(), x, lengths), gru.run(x))


def test_no_frame_gives_no_frame_and_changes_nothing(gru: Model) -> None:
    x = noise(2, 6, 3)
    stream = gru.stream(batch=2)
    first = stream.feed(x[:, :3])
    for _ in range(2):
        nothing = stream.feed(x[:, :0])
        assert isinstance(nothing, np.ndarray)
        assert (nothing.shape, nothing.dtype) == ((2, 0, 4), np.float32)
    assert np.array_equal(np.concatenate([first, stream.feed(x[:, 3:])], axis=1), gru.run(x))


MISFITS: list[tuple[Any, str]] = [
    (np.zeros((2, 1, 3)), "float64"),
    (np.zeros((2, 1, 3), np.int64), "int64"),
    (np.zeros((2, 1, 3), np.dtype(">f4")), ">f4"),
    (np.zeros((2, 3), np.float32), "shape"),
    (np.zeros((2, 1, 4), np.float32), "shape"),
    (np.zeros((1, 1, 3), np.float32), "holds 1 sequences, but the stream was opened for 2"),
    (np.zeros((3, 1, 3), np.float32), "holds 3 sequences"),
    (np.zeros((0, 1, 3), np.float32), "holds 0 sequences"),
    (np.float32(0), "not an array|shape"),
    ("text", "not an array"),
    (None, "not an array|shape"),
    ({}, "missing"),
    ({"z": np.zeros((2, 1, 3), np.float32)}, "unknown"),
    ({"x": np.zeros((2, 1, 3), np.float32), "z": np.zeros(1)}, "unknown"),
    ({"x": np.zeros((2, 1, 3))}, "float64"),
]


@pytest.mark.parametrize(("misfit", "message"), MISFITS)
def test_a_misfit_is_refused_and_the_stream_goes_on(gru: Model, misfit: Any, message: str) -> None:
    x = noise(2, 6, 3)
    stream = gru.stream(batch=2)
    found = []
    for frame in np.split(x, 6, axis=1):  # each refusal comes before and after a fitting chunk
        with pytest.raises(InputError, match=message):
            stream.feed(misfit)
        found.append(stream.feed(frame))
    assert np.array_equal(np.concatenate(found, axis=1), gru.run(x))


def test_an_input_may_be_a_view_a_list_or_a_dict(gru: Model) -> None:
    x = noise(2, 8, 3)
    stream = gru.stream(batch=2)
    strided = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    found = [
        stream.feed(strided[:, :2]),
        stream.feed(strided[:, 2:4]),
        stream.feed(x[:, 4:6].tolist()),
        stream.feed({"x": x[:, 6:]}),
    ]
    assert np.array_equal(np.concatenate(found, axis=1), gru.run(x))


def test_feeding_after_the_end_is_refused_until_reset(gru: Model) -> None:
    x = noise(1, 4, 3)
    stream = gru.stream()
    first = stream.feed(x)
    stream.flush()
    with pytest.raises(StreamError, match="was flushed") as caught:
        stream.feed(x)
    assert "reset()" in str(caught.value.hint)
    with pytest.raises(StreamError, match="flushed before"):
        stream.flush()
    stream.reset()
    assert stream.position == 0
    assert np.array_equal(stream.feed(x), first)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_strict_refuses_what_is_not_finite_and_goes_on(gru: Model, value: float) -> None:
    x = noise(1, 6, 3)
    bad = x[:, 2:4].copy()
    bad[0, 1, 2] = value
    stream = gru.stream(strict=True)
    first = stream.feed(x[:, :2])
    for _ in range(2):
        with pytest.raises(InputError, match=r"at index \[0, 1, 2\] \(after 2 frames\)"):
            stream.feed(bad)
    assert np.array_equal(np.concatenate([first, stream.feed(x[:, 2:])], axis=1), gru.run(x))


def test_without_strict_the_network_gets_nan(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx")
    stream = Stream(tmp_path / "sum.onnx")
    assert np.isnan(stream.feed(np.full((1, 1, 2), np.nan, np.float32))).all()


def test_a_failing_run_leaves_the_stream_as_it_was(tmp_path: Path) -> None:
    table = np.array([[1, 10], [2, 20]])
    running_sum(tmp_path / "ids.onnx", table=table, outputs=("y", "total"))
    stream = Stream(tmp_path / "ids.onnx")
    stream.feed(np.array([[0, 1]]))
    before = stream.snapshot()
    for _ in range(3):
        with pytest.raises(InputError, match="onnxruntime failed"):
            stream.feed(np.array([[1, 2]]))
        assert stream.snapshot() == before
    results = stream.feed(np.array([[1, 0]]))
    assert isinstance(results, dict)
    assert np.array_equal(results["y"], [[[5, 50], [6, 60]]])
    assert stream.position == 4


def test_results_are_the_callers_own(gru: Model) -> None:
    x = noise(1, 8, 3)
    stream = gru.stream()
    results = [stream.feed(frame) for frame in np.split(x, 8, axis=1)]
    kept = copy.deepcopy(results)
    assert not any(np.shares_memory(a, b) for a, b in combinations(results, 2))
    for result in results[:-1]:
        result[...] = np.nan  # must not reach the stream either
    assert np.array_equal(results[-1], kept[-1])
    assert np.array_equal(np.concatenate(kept, axis=1), gru.run(x))


def test_each_of_several_results_is_the_callers_own(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("y", "total"))
    stream = Stream(tmp_path / "sum.onnx")
    results = [stream.feed(np.ones((1, 1, 2), np.float32)) for _ in range(4)]
    assert [result["y"].item(0) for result in results] == [1, 2, 3, 4]
    assert [result["total"].item(0) for result in results] == [1, 2, 3, 4]


def test_an_input_may_be_overwritten_afterwards(gru: Model) -> None:
    x = noise(1, 6, 3)
    stream, buffer, found = gru.stream(), np.empty((1, 1, 3), np.float32), []
    for frame in np.split(x, 6, axis=1):
        buffer[...] = frame
        found.append(stream.feed(buffer))
        buffer[...] = np.nan
    assert np.array_equal(np.concatenate(found, axis=1), gru.run(x))


def test_a_readout_holds_its_value_after_the_last_frame(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("total",))
    stream = Stream(tmp_path / "sum.onnx", batch=2)
    nothing = np.ones((2, 0, 2), np.float32)
    assert np.isnan(stream.feed(nothing)).all()
    total = stream.feed(np.ones((2, 3, 2), np.float32))
    assert np.array_equal(total, np.full((2, 2), 3))
    total[...] = np.nan
    for again in (lambda: stream.feed(nothing), lambda: stream.feed(nothing), stream.flush):
        value = again()
        assert np.array_equal(value, np.full((2, 2), 3))
        value[...] = np.nan
    stream.reset()
    assert np.isnan(stream.flush()).all()


@pytest.mark.parametrize(
    ("dims", "axis"), [(("time", "batch", 2), 0), (("batch", "time", 2), 1), (("time", 2), 0)]
)
def test_any_layout_streams(tmp_path: Path, dims: tuple[int | str, ...], axis: int) -> None:
    running_sum(tmp_path / "sum.onnx", dims=dims)
    stream = Stream(tmp_path / "sum.onnx")
    x = np.ones(stream.model.contract.inputs[0].shape(batch=1, frames=7), np.float32)
    found = [stream.feed(chunk) for chunk in np.split(x, [1, 2, 5], axis=axis)]
    assert np.array_equal(np.concatenate(found, axis=axis), np.cumsum(x, axis=axis))


def test_several_inputs_go_by_name(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", inputs=("a", "b"))
    stream = Stream(tmp_path / "sum.onnx")
    a, b = noise(1, 4, 2), noise(1, 4, 2, seed=1)
    found = [stream.feed({"b": b[:, i : i + 1], "a": a[:, i : i + 1]}) for i in range(4)]
    np.testing.assert_allclose(
        np.concatenate(found, axis=1), np.cumsum(a.astype(np.float64) + b, axis=1), rtol=1e-5
    )
    with pytest.raises(InputError, match="disagree"):
        stream.feed({"a": a[:, :1], "b": b[:, :2]})
    with pytest.raises(InputError, match="2 inputs"):
        stream.feed(a[:, :1])


def test_streams_of_one_model_do_not_interfere(gru: Model) -> None:
    xs = [noise(1, 20, 3, seed=seed) for seed in range(3)]
    streams = [gru.stream() for _ in xs]
    found: list[list[Any]] = [[] for _ in xs]
    for frame in range(20):
        for stream, x, results in zip(streams, xs, found, strict=True):
            results.append(stream.feed(x[:, frame : frame + 1]))
    for x, results in zip(xs, found, strict=True):
        assert np.array_equal(np.concatenate(results, axis=1), gru.run(x))


def test_threads_each_with_a_stream_of_one_model(gru: Model) -> None:
    def run(seed: int) -> bool:
        x = noise(1, 200, 3, seed=seed)
        found = feed_in_chunks(gru.stream(), x, [1] * 150 + [5] * 10)
        return np.array_equal(found, gru.run(x))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(16)))


@pytest.mark.parametrize("copied", [Stream.clone, lambda s: restored(s, s.model.stream())])
def test_a_copy_goes_on_alone(gru: Model, copied: Callable[[Stream], Stream]) -> None:
    x, other = noise(1, 10, 3), noise(1, 10, 3, seed=1)
    stream = gru.stream()
    stream.feed(x[:, :3])
    twin = copied(stream)
    assert twin.position == 3
    strayed = twin.feed(other)
    assert np.array_equal(stream.feed(x[:, 3:]), gru.run(x)[:, 3:])
    whole = np.concatenate([x[:, :3], other], axis=1)
    assert np.array_equal(strayed, gru.run(whole)[:, 3:])


def restored(source: Stream, target: Stream) -> Stream:
    target.restore(source.snapshot())
    return target


def test_a_copy_of_a_flushed_stream_is_flushed(gru: Model) -> None:
    stream = gru.stream()
    stream.flush()
    for twin in (stream.clone(), restored(stream, gru.stream())):
        with pytest.raises(StreamError, match="was flushed"):
            twin.feed(noise(1, 1, 3))


def test_a_clone_keeps_strict_and_its_own_readouts(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("total",))
    stream = Stream(tmp_path / "sum.onnx", strict=True)
    stream.feed(np.ones((1, 2, 2), np.float32))
    twin = stream.clone()
    stream.feed(np.ones((1, 2, 2), np.float32))
    assert np.array_equal(twin.flush(), [[2, 2]])
    with pytest.raises(InputError, match="nan"):
        stream.clone().feed(np.full((1, 1, 2), np.nan, np.float32))


def test_states_are_copies_by_name(gru: Model) -> None:
    x = noise(2, 3, 3)
    stream = gru.stream(batch=2)
    y = stream.feed(x)
    states = stream.states()
    assert list(states) == ["s000"]
    assert np.array_equal(states["s000"], y[:, -1])
    states["s000"][...] = np.nan
    assert np.isfinite(stream.feed(x)).all()


@pytest.mark.parametrize("batch", [0, -1, 1.0, True, "2", None])
def test_a_batch_that_is_no_count_is_refused(gru: Model, batch: Any) -> None:
    with pytest.raises(InputError, match="batch"):
        gru.stream(batch=batch)


def test_an_artifact_without_batch_axis_streams_one_sequence(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", dims=("time", 2))
    with pytest.raises(InputError, match="no batch axis"):
        Stream(tmp_path / "sum.onnx", batch=2)


def test_an_artifact_without_a_time_axis_does_not_stream(tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    contract = running_sum(path)
    timeless = dataclasses.replace(contract.inputs[0], time_axis=None)
    model = onnx.load(path)
    text = dataclasses.replace(contract, inputs=(timeless,)).to_json()
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="no input has a time axis"):
        Stream(path)


def test_an_offline_artifact_does_not_stream(tmp_path: Path) -> None:
    gru_artifact(tmp_path / "gru.onnx", streaming=False)
    with pytest.raises(ArtifactError, match="offline artifact") as caught:
        Stream(tmp_path / "gru.onnx")
    assert "streaming" in str(caught.value.hint)
