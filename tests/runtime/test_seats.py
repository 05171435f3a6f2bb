"""Streams share buffers: however they take turns, each goes on as if it were alone."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import gru_artifact
from rnnx_runtime import InputError, Model, seats

FEW = 2


@pytest.fixture
def gru(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """With two seats, so that three streams are already too many."""
    monkeypatch.setattr(seats, "_SEATS", FEW)
    gru_artifact(tmp_path / "gru.onnx")
    return Model(tmp_path / "gru.onnx")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("seats") / "gru.onnx"
    gru_artifact(path)
    return Model(path)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=60)
@given(
    turns=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=5, max_size=40),
    two=st.sets(st.integers(0, 4)),
)
def test_in_any_order_each_stream_is_alone(
    shared: Model, turns: list[tuple[int, int]], two: set[int]
) -> None:
    before = seats._SEATS
    seats._SEATS = FEW
    try:
        take_turns(Model(shared.path), turns, two)
    finally:
        seats._SEATS = before


def take_turns(model: Model, turns: list[tuple[int, int]], two: set[int]) -> None:
    """Streams of one and of two sequences, each held against a whole run of what it was fed."""
    streams = {key: model.stream(batch=2 if key in two else 1) for key, _ in turns}
    fed = {key: [] for key in streams}
    got = {key: [] for key in streams}
    for turn, (key, frames) in enumerate(turns):
        x = noise(streams[key].batch, frames, 3, seed=turn)
        fed[key].append(x)
        got[key].append(streams[key].feed(x))
    for key in streams:
        whole = model.run(np.concatenate(fed[key], 1))
        assert np.array_equal(np.concatenate(got[key], 1), whole)


def test_threads_share_seats(gru: Model) -> None:
    """Eight threads, three streams each, two seats."""
    frames, begin = 200, threading.Barrier(8)

    def run(thread: int) -> bool:
        xs = [noise(1, frames, 3, seed=8 * i + thread) for i in range(3)]
        streams = [gru.stream() for _ in xs]
        begin.wait()
        ys: list[list[Any]] = [[] for _ in xs]
        for t in range(frames):
            for stream, x, y in zip(streams, xs, ys, strict=True):
                y.append(stream.feed(x[:, t : t + 1]))
        whole = [gru.run(x) for x in xs]
        return all(np.array_equal(np.concatenate(y, 1), w) for y, w in zip(ys, whole, strict=True))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(run, range(8)))


def test_snapshots_clones_and_resets_need_no_seat(gru: Model) -> None:
    x = noise(1, 9, 3)
    first = gru.stream()
    first.feed(x[:, :4])
    first.feed(x[:, 4:5])
    others = [gru.stream() for _ in range(2 * FEW)]
    for other in others:  # take its seat
        other.feed(x[:, :1])
        other.feed(x[:, :1])
    states = first.states()
    twin, copy = first.clone(), gru.stream()
    copy.restore(first.snapshot())
    for stream in (first, twin, copy):
        assert np.array_equal(stream.states()["s000"], states["s000"])
        assert np.array_equal(stream.feed(x[:, 5:]), gru.run(x)[:, 5:])
    first.reset()
    assert np.array_equal(first.feed(x), gru.run(x))


def test_a_seat_keeps_no_stream_alive(gru: Model) -> None:
    x, made = noise(1, 1, 3), []
    for _ in range(10):
        stream = gru.stream()
        stream.feed(x)
        stream.feed(x)
        made.append(weakref.ref(stream))
    del stream
    gc.collect()
    assert not any(reference() for reference in made)
    assert len(gru.seats.taken) == FEW


def test_a_failing_run_gives_the_seat_back(gru: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(1, 6, 3)
    stream = gru.stream()
    for t in range(3):
        stream.feed(x[:, t : t + 1])
    bound = next(iter(gru.seats.taken.values())).bound_for(1)

    def fail(binding: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(bound, "_run", fail)
    with pytest.raises(InputError, match="no luck"):
        stream.feed(x[:, 3:4])
    assert stream.position == 3
    monkeypatch.undo()
    assert np.array_equal(stream.feed(x[:, 3:]), gru.run(x)[:, 3:])


def test_without_copies_the_buffers_are_the_streams_own(gru: Model) -> None:
    x = noise(1, 8, 3)
    whole = gru.run(x)
    stream = gru.stream(copy=False)
    stream.feed(x[:, :1])
    first = stream.feed(x[:, 1:2])
    for other in [gru.stream() for _ in range(2 * FEW)]:
        other.feed(x[:, 5:6])
        other.feed(x[:, 5:6])
    assert np.array_equal(first, whole[:, 1:2])  # nobody else writes there
    second = stream.feed(x[:, 2:3])
    assert np.shares_memory(first, second)
    assert np.array_equal(first, whole[:, 2:3])
    assert np.array_equal(stream.clone().feed(x[:, 3:]), whole[:, 3:])


def test_results_go_into_the_callers_array(gru: Model) -> None:
    x = noise(1, 6, 3)
    y, stream = np.empty((1, 6, 4), np.float32), gru.stream()
    for t in range(6):
        out = y[:, t : t + 1]
        assert stream.feed(x[:, t : t + 1], out=out) is out
    assert np.array_equal(y, gru.run(x))


def read_only() -> Any:
    out = np.empty((1, 1, 4), np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize("fed", [0, 1, 3])
@pytest.mark.parametrize(
    "out",
    [
        np.empty((1, 2, 4), np.float32),
        np.empty((1, 1, 4), np.float64),
        np.empty((4,), np.float32),
        [0.0],
        {"y": np.empty((1, 1, 4), np.float32)},
        read_only(),
    ],
)
def test_an_array_that_does_not_fit_loses_nothing(gru: Model, out: Any, fed: int) -> None:
    x = noise(1, 6, 3)
    stream = gru.stream()
    for t in range(fed):
        stream.feed(x[:, t : t + 1])
    with pytest.raises(InputError, match="out "):
        stream.feed(x[:, fed : fed + 1], out=out)
    assert stream.position == fed
    assert np.array_equal(stream.feed(x[:, fed:]), gru.run(x)[:, fed:])
