"""Streams of a pool equal streams alone: in any order, at any pace, whatever their neighbours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import gru_artifact
from lagging import lagging
from rnnx_runtime import BusyError, InputError, Model, StreamError, StreamPool
from rnnx_runtime.pooled_stream import PooledStream
from running_sums import running_sum

Array = npt.NDArray[np.float32]
FEATURES = 3


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("pool") / "gru.onnx"
    gru_artifact(path, features=FEATURES)
    return Model(path)


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Outputs of two rates, with a tail."""
    return lagging(tmp_path_factory.mktemp("pool"), "rates")[1]


def sequences(model: Model, *lengths: int) -> list[Array]:
    rng = np.random.default_rng(0)
    (port,) = model.contract.inputs
    shapes = (port.shape(batch=1, frames=frames) for frames in lengths)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def cut(model: Model, x: Array, start: int, stop: int) -> Array:
    axis = model.contract.inputs[0].time_axis
    return x.take(range(start, min(stop, x.shape[axis])), axis)


def named(model: Model, result: Array | dict[str, Array]) -> dict[str, Array]:
    return result if isinstance(result, dict) else {model.contract.outputs[0].name: result}


def hold(model: Model, parts: list[Array | dict[str, Array]], x: Array) -> None:
    """What a stream alone gives: bit for bit; convolutions round by their lengths."""
    alone = model.stream()
    expected = [named(model, part) for part in (alone.feed(x), alone.flush())]
    for port in model.contract.outputs:
        found = np.concatenate([named(model, p)[port.name] for p in parts], port.time_axis)
        whole = np.concatenate([part[port.name] for part in expected], port.time_axis)
        exact = "Conv" not in model.contract.operators
        np.testing.assert_allclose(found, whole, rtol=0, atol=0 if exact else 1e-6)


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=40), seed=st.data())
@pytest.mark.parametrize("name", ["gru", "rates"])
def test_every_stream_at_its_own_pace(
    name: str,
    steps: list[tuple[int, int]],
    seed: st.DataObject,
    request: pytest.FixtureRequest,
) -> None:
    model: Model = request.getfixturevalue(name)
    xs = sequences(model, 17, 40, 23)
    pool = StreamPool(model, max_streams=3)
    streams = [pool.open() for _ in xs]
    parts: list[list[Array | dict[str, Array]]] = [[] for _ in xs]
    places = [0] * len(xs)
    for which, frames in steps:
        chunk = cut(model, xs[which], places[which], places[which] + frames)
        streams[which].push(chunk)
        places[which] += frames
        if seed.draw(st.booleans()):
            parts[which].append(streams[which].pull())
    for which, stream in enumerate(streams):
        parts[which].append(stream.feed(cut(model, xs[which], places[which], 10**6)))
        parts[which].append(stream.flush())
        hold(model, parts[which], xs[which])


def test_one_stacked_step_for_all(gru: Model) -> None:
    xs = sequences(gru, 30, 30, 30, 30)
    pool = StreamPool(gru, max_streams=4)
    streams = [pool.open() for _ in xs]
    order = streams[::-1]
    parts: dict[PooledStream, list[Array]] = {stream: [] for stream in streams}
    for t in range(0, 30, 3):
        x = np.concatenate([cut(gru, xs[streams.index(s)], t, t + 3) for s in order])
        y = pool.feed(order, x)
        for row, stream in enumerate(order):
            parts[stream].append(y[row : row + 1])
        if t == 12:  # the rows are in another order from here on
            order = order[1:] + order[:1]
    for stream, x in zip(streams, xs, strict=True):
        hold(gru, [*parts[stream], stream.flush()], x)


def test_stacked_steps_of_streams_that_begin_are_refused_where_rows_differ(rates: Model) -> None:
    pool = StreamPool(rates, max_streams=2)
    early, late = pool.open(), pool.open()
    (x,) = sequences(rates, 40)
    early.feed(x)
    with pytest.raises(InputError, match="different numbers of frames"):
        pool.feed([early, late], np.concatenate([x[..., :3]] * 2))


def test_a_poisoned_neighbour_changes_nothing(gru: Model) -> None:
    x, other = sequences(gru, 20, 20)

    def beside(neighbour: Array) -> list[Array]:
        pool = StreamPool(gru, max_streams=2)
        streams = [pool.open(), pool.open()]
        return [
            pool.feed(streams, np.concatenate([cut(gru, s, t, t + 1) for s in (x, neighbour)]))[:1]
            for t in range(20)
        ]

    poisoned = other.copy()
    poisoned[:, 7:] = np.nan
    poisoned[:, 12:] = np.inf
    np.testing.assert_array_equal(beside(poisoned), beside(other))


def test_an_input_that_makes_the_run_fail_fails_its_own_stream_only(tmp_path: Path) -> None:
    model = lagging(tmp_path, "ids")[1]  # the table has three rows
    pool = StreamPool(model, max_streams=3)
    good, bad, fine = (pool.open() for _ in range(3))
    ids = np.array([[0, 1, 2, 1]])
    for stream in (good, bad, fine):
        stream.feed(ids)
    for stream, more in ((good, [[2, 2]]), (bad, [[1, 99]]), (fine, [[0, 1]])):
        stream.push(np.array(more))
    with pytest.raises(InputError, match="onnxruntime failed"):
        bad.pull()
    for stream, more in ((good, [[2, 2]]), (fine, [[0, 1]])):
        alone = model.stream()
        alone.feed(ids)
        np.testing.assert_array_equal(stream.pull(), alone.feed(np.array(more)))
    alone = model.stream()
    alone.feed(ids)
    np.testing.assert_array_equal(bad.feed(np.array([[1]])), alone.feed(np.array([[1]])))


def test_idle_streams_sleep_and_come_back(gru: Model) -> None:
    xs = sequences(gru, *[12] * 7)
    pool = StreamPool(gru, max_streams=2)
    streams = [pool.open() for _ in xs]
    parts: list[list[Array]] = [[] for _ in xs]
    for t in range(0, 12, 2):
        for stream, x, own in zip(streams, xs, parts, strict=True):
            own.append(stream.feed(cut(gru, x, t, t + 2)))
    for stream, x, own in zip(streams, xs, parts, strict=True):
        hold(gru, [*own, stream.flush()], x)


def test_a_pool_without_room_says_so(gru: Model) -> None:
    (x,) = sequences(gru, 8)
    pool = StreamPool(gru, max_streams=1, max_pending=10)
    stream = pool.open()
    stream.push(x)
    with pytest.raises(BusyError, match="1 live streams have frames"):
        pool.open()
    with pytest.raises(BusyError, match=r"0 frames wait, and 16 more would exceed 10"):
        stream.push(np.concatenate([x, x], 1), timeout=None)
    stream.push(x, timeout=None)  # makes room by running what waits
    assert stream.pull().shape[1] == 16


def test_a_full_queue_waits_no_longer_than_it_is_told(rates: Model) -> None:
    (x,) = sequences(rates, 2)
    stream = StreamPool(rates, max_streams=1, max_pending=2).open()
    stream.push(x)  # too few for a run
    with pytest.raises(BusyError, match="2 frames wait, and 2 more would exceed 2"):
        stream.push(x, timeout=0.01)


def test_strict_names_the_frame(gru: Model) -> None:
    (x,) = sequences(gru, 8)
    stream = StreamPool(gru, max_streams=1, strict=True).open()
    stream.feed(x)
    x[0, 3, 1] = np.nan
    with pytest.raises(InputError, match=r"nan at index \[0, 3, 1\] \(after 8 frames\)"):
        stream.push(x)


@pytest.mark.parametrize("name", ["gru", "rates"])
def test_a_snapshot_goes_on_in_a_stream_alone(name: str, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    x, other = sequences(model, 37, 37)
    pool = StreamPool(model, max_streams=2)
    stream, beside = pool.open(), pool.open()
    beside.push(cut(model, other, 0, 30))
    parts = [stream.feed(cut(model, x, 0, 19))]
    alone = model.stream()
    alone.restore(stream.snapshot())
    hold(model, [*parts, alone.feed(cut(model, x, 19, 37)), alone.flush()], x)
    hold(model, [*parts, stream.feed(cut(model, x, 19, 37)), stream.flush()], x)


def test_a_readout_holds_its_value_while_nothing_is_fed(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("y", "total"))
    pool = StreamPool(tmp_path / "sum.onnx", max_streams=2)
    streams, x = [pool.open(), pool.open()], np.ones((1, 1, 2), np.float32)
    for turn in range(1, 4):
        for stream in streams:
            stream.push(x)
        pool.run()
        for stream in streams:
            assert np.array_equal(stream.pull()["total"], np.full((1, 2), turn))
            assert np.array_equal(stream.pull()["total"], np.full((1, 2), turn))
    first = streams[0].flush()
    assert np.array_equal(first["total"], np.full((1, 2), 3))


def test_what_has_ended_is_refused(gru: Model) -> None:
    (x,) = sequences(gru, 4)
    pool = StreamPool(gru, max_streams=1)
    stream = pool.open()
    stream.feed(x)
    stream.flush()
    with pytest.raises(StreamError, match="flushed"):
        stream.push(x)
    with pool.open() as closed:
        closed.push(x)
    for call in (closed.pull, closed.flush, closed.snapshot):
        with pytest.raises(StreamError, match="closed"):
            call()


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_numbers_below_one_are_refused(gru: Model, wrong: int) -> None:
    with pytest.raises(InputError, match="max_streams"):
        StreamPool(gru, max_streams=wrong)


def test_threads_share_a_pool(gru: Model) -> None:
    xs = sequences(gru, *[60] * 8)
    pool = StreamPool(gru, max_streams=8)
    parts: dict[int, list[Array]] = {}

    def live(which: int) -> None:
        with pool.open() as stream:
            steps = [stream.feed(cut(gru, xs[which], t, t + 1)) for t in range(60)]
            parts[which] = [*steps, stream.flush()]

    threads = [threading.Thread(target=live, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, x in enumerate(xs):
        hold(gru, parts[which], x)


def test_tasks_share_a_pool(gru: Model) -> None:
    xs = sequences(gru, *[20] * 6)

    async def live(pool: StreamPool, x: Array) -> list[Array]:
        async with pool.stream() as stream:
            steps = [await stream.feed(cut(gru, x, t, t + 1)) for t in range(20)]
            return [*steps, await stream.flush()]

    async def all_of_them() -> list[list[Array]]:
        pool = StreamPool(gru, max_streams=6)
        return await asyncio.gather(*(live(pool, x) for x in xs))

    for parts, x in zip(asyncio.run(all_of_them()), xs, strict=True):
        hold(gru, parts, x)


def _runs(pool: StreamPool) -> Iterator[int]:
    while served := pool.run():
        yield served


def test_a_run_serves_all_that_are_ready(gru: Model) -> None:
    xs = sequences(gru, 3, 3, 3)
    pool = StreamPool(gru, max_streams=3)
    streams = [pool.open() for _ in xs]
    for stream, x in zip(streams, xs, strict=True):
        stream.feed(x)
    for stream, x in zip([*streams, streams[0]], [*xs, xs[0]], strict=True):
        stream.push(x)
    assert list(_runs(pool)) == [3, 1]
