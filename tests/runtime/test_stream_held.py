"""Streams that hold frames back: until a window is whole, and to the end of the sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagging import lagging, offline
from rnnx_runtime import InputError, Model, Stream, StreamError

ATOL = 1e-6
WINDOW, HOP = 400, 160


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    return lagging(tmp_path_factory.mktemp("held"), "frames")


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    return lagging(tmp_path_factory.mktemp("held"), "scaled")


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    return lagging(tmp_path_factory.mktemp("held"), "rates")


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    return lagging(tmp_path_factory.mktemp("held"), "ids")


def wave(samples: int, batch: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(batch, 1, samples)).astype(np.float32)


def fed(stream: Stream, x: Any, lengths: Iterable[int]) -> Any:
    """What comes out in all, the tail included."""
    chunks = np.split(x, np.cumsum([*lengths])[:-1], axis=2)
    return np.concatenate([*map(stream.feed, chunks), stream.flush()], axis=2)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 561, 1039, 1999])
@pytest.mark.parametrize("size", [1, 7, 159, 160, 161, 400, 1999])
def test_windows_are_whole_in_chunks_of_any_size(
    frames: tuple[Path, Model], samples: int, size: int
) -> None:
    src, model = frames
    x = wave(samples, batch=2)
    lengths = [min(size, samples - start) for start in range(0, samples, size)]
    found = fed(model.stream(batch=2), x, lengths)
    (expected,) = offline(src, x=x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(0, 700), min_size=1, max_size=8), batch=st.integers(1, 3))
def test_any_chunking_gives_the_same(
    frames: tuple[Path, Model], lengths: list[int], batch: int
) -> None:
    src, model = frames
    x = wave(sum(lengths), batch=batch)
    stream = model.stream(batch=batch)
    found = fed(stream, x, lengths)
    assert stream.position == sum(lengths)
    if sum(lengths) < WINDOW:
        assert found.shape == (batch, 2, 0)
    else:
        np.testing.assert_allclose(found, offline(src, x=x)[0], rtol=0, atol=ATOL)


@pytest.mark.parametrize("samples", range(1, 20))
def test_outputs_of_two_rates_end_together(rates: tuple[Path, Model], samples: int) -> None:
    src, model = rates
    x, stream = wave(samples, batch=2), model.stream(batch=2)
    parts = [stream.feed(part) for part in np.split(x, [samples // 2], axis=2)]
    parts.append(stream.flush())
    for name, expected in zip(("y", "z"), offline(src, x=x), strict=True):
        assert all(part[name].flags.c_contiguous for part in parts)
        found = np.concatenate([part[name] for part in parts], axis=2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL)


def test_a_frame_comes_with_the_last_sample_it_sees(frames: tuple[Path, Model]) -> None:
    _, model = frames
    stream, port = model.stream(), model.contract.outputs[0]
    came = [stream.feed(wave(1)).shape[2] for _ in range(1000)]
    ends = [position for position, count in enumerate(came) if count]
    assert ends == [port.sees(frame)[1] for frame in range(len(ends))]
    assert ends[:2] == [WINDOW - 1, WINDOW + HOP - 1]
    assert set(came) == {0, 1}


def test_nothing_fed_is_nothing_at_the_end(
    frames: tuple[Path, Model], scaled: tuple[Path, Model]
) -> None:
    stream = frames[1].stream(batch=3)
    assert stream.flush().shape == (3, 2, 0)
    tail = scaled[1].stream().flush()
    assert isinstance(tail, dict)
    assert tail["y"].shape == (1, 2, 0)
    assert np.isnan(tail["last"]).all()


def test_one_sample_is_enough_for_a_padded_window(scaled: tuple[Path, Model]) -> None:
    src, model = scaled
    x, gain = wave(1), np.full((1, 1), 2, np.float32)
    stream = model.stream()
    first = stream.feed({"x": x, "gain": gain})
    assert first["y"].shape == (1, 2, 0)
    assert np.isnan(first["last"]).all()
    tail = stream.flush()
    for name, expected in zip(("y", "last"), offline(src, x=x, gain=gain), strict=True):
        np.testing.assert_allclose(tail[name], expected, rtol=0, atol=ATOL)


def test_the_end_is_the_end_until_reset(frames: tuple[Path, Model]) -> None:
    src, model = frames
    stream, x = model.stream(), wave(1000)
    for samples in (0, 100, 399, 450, 1000):
        stream.feed(wave(samples, seed=1))
        stream.flush()
        for refused in (lambda: stream.feed(x), stream.flush):
            with pytest.raises(StreamError, match="flushed"):
                refused()
        stream.reset()
        assert stream.position == 0
    stream.feed(wave(450, seed=1))
    stream.reset()  # nothing of what was held is left
    np.testing.assert_allclose(fed(stream, x, [1000]), offline(src, x=x)[0], rtol=0, atol=ATOL)


BAD: list[tuple[Any, str]] = [
    (wave(10, batch=2), "holds 2 sequences"),
    (np.zeros((1, 2, 10), np.float32), "shape"),
    (np.zeros((1, 1, 10)), "float64"),
    (np.where(np.arange(10) == 7, np.nan, wave(10)).astype(np.float32), r"nan at .*\[0, 0, 7\]"),
]


@pytest.mark.parametrize("held", [0, 100, 399, 400, 450, 560])
@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_refused_chunk_leaves_what_is_held(
    frames: tuple[Path, Model], held: int, bad: Any, message: str
) -> None:
    src, model = frames
    x, stream = wave(1000), model.stream(strict=True)
    found = [stream.feed(x[..., :held])]
    before = stream.snapshot()
    for _ in range(2):
        with pytest.raises(InputError, match=message) as caught:
            stream.feed(bad)
        assert stream.snapshot() == before
    if "nan" in message:
        assert f"(after {held} frames)" in str(caught.value)
    found += [stream.feed(x[..., held:]), stream.flush()]
    expected = offline(src, x=x)[0]
    np.testing.assert_allclose(np.concatenate(found, 2), expected, rtol=0, atol=ATOL)


def test_a_run_that_fails_leaves_what_is_held(ids: tuple[Path, Model]) -> None:
    src, model = ids
    x = np.array([[0, 2, 1, 1, 0, 2]])
    stream = model.stream()
    found = [stream.feed(x[:, :1])]
    for _ in range(2):
        with pytest.raises(InputError, match="onnxruntime failed"):
            stream.feed(np.array([[1, 9]]))
    found.append(stream.feed(x[:, 1:3]))
    with pytest.raises(InputError, match="onnxruntime failed"):
        stream.feed(np.array([[9, 1]]))
    found += [stream.feed(x[:, 3:]), stream.flush()]
    expected = offline(src, ids=x)[0]
    np.testing.assert_allclose(np.concatenate(found, 2), expected, rtol=0, atol=ATOL)


def restored(source: Stream) -> Stream:
    twin = source.model.stream(batch=source.batch)
    twin.feed(wave(777, batch=source.batch, seed=9))  # what was there before goes
    twin.restore(source.snapshot())
    return twin


@pytest.mark.parametrize("copied", [Stream.clone, restored])
@pytest.mark.parametrize("samples", [0, 1, 399, 400, 450, 560, 719])
def test_a_copy_goes_on_with_what_is_held(
    frames: tuple[Path, Model], copied: Callable[[Stream], Stream], samples: int
) -> None:
    src, model = frames
    x, other = wave(1200), wave(800, seed=1)
    stream = model.stream()
    start = stream.feed(x[..., :samples])
    twin = copied(stream)
    assert twin.position == samples
    strayed = np.concatenate([start, fed(twin, other, [1, 799])], 2)
    rest = np.concatenate([start, fed(stream, x[..., samples:], [1200 - samples])], 2)
    whole = np.concatenate([x[..., :samples], other], 2)
    np.testing.assert_allclose(strayed, offline(src, x=whole)[0], rtol=0, atol=ATOL)
    np.testing.assert_allclose(rest, offline(src, x=x)[0], rtol=0, atol=ATOL)


@pytest.mark.parametrize("samples", [0, 1, 399, 450])
def test_a_copy_of_an_ended_stream_has_ended(frames: tuple[Path, Model], samples: int) -> None:
    stream = frames[1].stream()
    stream.feed(wave(samples))
    stream.flush()
    for twin in (stream.clone(), restored(stream)):
        assert twin.position == samples
        with pytest.raises(StreamError, match="was flushed"):
            twin.feed(wave(1))


@pytest.mark.parametrize("lengths", [[1], [2], [3, 1], [1, 1, 1, 4], [2, 2, 2, 2], [9]])
def test_an_input_without_frames_counts_to_the_end(
    scaled: tuple[Path, Model], lengths: list[int]
) -> None:
    """What was given last scales the frames that come out at the end."""
    src, model = scaled
    stream, x = model.stream(batch=2), wave(sum(lengths), batch=2)
    parts = []
    for place, chunk in enumerate(np.split(x, np.cumsum(lengths)[:-1], axis=2)):
        gain = np.full((2, 1), place + 1, np.float32)
        parts.append(stream.feed({"x": chunk, "gain": gain}))
    parts += [stream.clone().flush()]
    ones, _ = offline(src, x=x, gain=np.ones((2, 1), np.float32))
    expected = offline(src, x=x, gain=gain)[0] / ones
    tail = parts[-1]["y"].shape[2]
    assert tail
    found = np.concatenate([part["y"] for part in parts], axis=2)
    assert found.shape == ones.shape
    np.testing.assert_allclose(
        found[..., -tail:], (ones * expected)[..., -tail:], rtol=0, atol=ATOL * len(lengths)
    )
    np.testing.assert_allclose(parts[-1]["last"], found[..., -1], rtol=0, atol=ATOL)


def test_a_refused_input_without_frames_is_not_kept(scaled: tuple[Path, Model]) -> None:
    src, model = scaled
    x, gain = wave(9), np.full((1, 1), 3, np.float32)
    stream = model.stream(strict=True)
    # The first chunk is just what the network takes, so that no frame is held behind any.
    assert (model.contract.first_chunk, model.contract.chunk_multiple) == (3, 2)
    found = [stream.feed({"x": part, "gain": gain}) for part in np.split(x, [3, 5, 7], axis=2)]
    before = stream.snapshot()
    for bad in (
        {"x": x[..., :2], "gain": np.full((1, 1), np.nan, np.float32)},
        {"gain": np.full((1, 1), 5, np.float32), "x": np.full((1, 1, 2), np.inf, np.float32)},
        {"gain": np.full((1, 1), 5, np.float32), "x": np.zeros((1, 1, 2))},
    ):
        with pytest.raises(InputError):
            stream.feed(bad)
        assert stream.snapshot() == before
    found.append(stream.flush())
    whole = np.concatenate([part["y"] for part in found], axis=2)
    np.testing.assert_allclose(whole, offline(src, x=x, gain=gain)[0], rtol=0, atol=ATOL)


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 9])
def test_a_whole_run_is_the_offline_graph_s(scaled: tuple[Path, Model], samples: int) -> None:
    src, model = scaled
    feeds = {"x": wave(samples, batch=2), "gain": np.full((2, 1), 1.5, np.float32)}
    found = model.run(feeds)
    assert isinstance(found, dict)
    for value, expected in zip(found.values(), offline(src, **feeds), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=ATOL)


def test_a_readout_stays_what_it_was_while_frames_are_held(scaled: tuple[Path, Model]) -> None:
    _, model = scaled
    stream, gain = model.stream(), np.ones((1, 1), np.float32)
    first = stream.feed({"x": wave(5), "gain": gain})
    again = stream.feed({"x": wave(1), "gain": gain})
    assert again["y"].shape == (1, 2, 0)
    assert np.array_equal(again["last"], first["last"])
    assert np.array_equal(stream.clone().feed({"x": wave(0), "gain": gain})["last"], first["last"])


def test_what_comes_out_is_the_callers_own(frames: tuple[Path, Model]) -> None:
    src, model = frames
    x, stream, found = wave(1600), model.stream(), []
    for part in (*np.split(x, 10, axis=2), None):
        result = stream.feed(part) if part is not None else stream.flush()
        found.append(result.copy())
        result[...] = np.nan
        if part is not None:
            part[...] = np.nan
    np.testing.assert_allclose(
        np.concatenate(found, 2), offline(src, x=wave(1600))[0], rtol=0, atol=ATOL
    )
