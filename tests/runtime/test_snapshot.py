from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifacts import gru_artifact
from rnnx_runtime import Model, Stream, StreamError
from rnnx_runtime.contract import DTYPES
from rnnx_runtime.snapshot import Snapshot, pack, unpack
from running_sums import running_sum

values = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    path = tmp_path_factory.mktemp("snapshot") / "gru.onnx"
    gru_artifact(path)
    stream = Model(path).stream(batch=2)
    stream.feed(np.ones((2, 3, 3), np.float32))
    return stream


@given(
    st.dictionaries(st.text(max_size=5), values, max_size=3),
    st.text(max_size=5),
    st.integers(1, 9),
    st.integers(0, 2**60),
    st.booleans(),
)
def test_bytes_keep_everything(
    kept: dict[str, Any], fingerprint: str, batch: int, position: int, flushed: bool
) -> None:
    taken = unpack(pack(Snapshot(fingerprint, batch, position, flushed, kept)))
    assert (taken.fingerprint, taken.batch) == (fingerprint, batch)
    assert (taken.position, taken.flushed) == (position, flushed)
    assert list(taken.arrays) == list(kept)
    for name, array in kept.items():
        read = taken.arrays[name]
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()


@given(st.data())
def test_damaged_bytes_are_refused_and_change_nothing(stream: Stream, data: st.DataObject) -> None:
    whole = stream.snapshot()
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), whole[:position], whole + whole[: position + 1]):
        with pytest.raises(StreamError):
            stream.restore(damaged)
        assert stream.snapshot() == whole


@given(st.binary(max_size=200))
def test_forged_bytes_with_a_right_hash_are_refused(stream: Stream, forged: bytes) -> None:
    whole = stream.snapshot()
    for body in (whole[:8] + forged, whole[:12] + forged, whole[:-32] + forged + b"!"):
        with pytest.raises(StreamError):
            stream.restore(body + hashlib.sha256(body).digest())
    assert stream.snapshot() == whole


def test_a_snapshot_of_another_artifact_is_refused(stream: Stream, tmp_path: Path) -> None:
    gru_artifact(tmp_path / "other.onnx", seed=1)
    other = Stream(tmp_path / "other.onnx", batch=2)
    with pytest.raises(StreamError, match="another artifact"):
        other.restore(stream.snapshot())


def test_a_snapshot_of_another_batch_is_refused(stream: Stream) -> None:
    single = stream.model.stream()
    with pytest.raises(StreamError, match="holds 2 sequences") as caught:
        single.restore(stream.snapshot())
    assert "batch=2" in str(caught.value.hint)


def test_states_that_do_not_fit_are_refused(stream: Stream) -> None:
    taken = unpack(stream.snapshot())
    lies: list[dict[str, Any]] = [
        {},
        {"s000": np.zeros((2, 5), np.float32)},
        {"s000": np.zeros((2, 4))},
        {"s000": taken.arrays["s000"], "s001": taken.arrays["s000"]},
    ]
    for arrays_ in lies:
        forged = Snapshot(taken.fingerprint, 2, 3, False, arrays_)
        with pytest.raises(StreamError, match="do not fit"):
            stream.restore(pack(forged))


def test_restoring_goes_back_in_time(stream: Stream) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    twin = stream.clone()
    taken = twin.snapshot()
    first = twin.feed(x)
    twin.restore(taken)
    assert twin.position == 3
    assert np.array_equal(twin.feed(x), first)


def test_a_snapshot_carries_the_readouts(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("total",))
    stream = Stream(tmp_path / "sum.onnx")
    before = stream.snapshot()
    stream.feed(np.ones((1, 4, 2), np.float32))
    after = stream.snapshot()
    stream.restore(before)
    assert np.isnan(stream.feed(np.ones((1, 0, 2), np.float32))).all()
    stream.restore(after)
    assert np.array_equal(stream.flush(), [[4, 4]])
