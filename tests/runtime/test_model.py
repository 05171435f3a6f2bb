from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts import gru_artifact
from oracles import gru_in_float64
from rnnx_runtime import InputError, Model
from running_sums import running_sum

GRU_TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # float32 against float64


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "gru.onnx"
    gru_artifact(path)
    return Model(path)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "offline.onnx"
    gru_artifact(path, streaming=False)
    return Model(path)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(batch=st.integers(1, 5), frames=st.integers(1, 40), seed=st.integers(0, 99))
def test_run_equals_a_gru_in_float64(
    gru: Model, offline: Model, batch: int, frames: int, seed: int
) -> None:
    x = noise(batch, frames, 3, seed=seed)
    expected = gru_in_float64(Path(gru.path), x)
    np.testing.assert_allclose(gru.run(x), expected, **GRU_TOLERANCE)
    np.testing.assert_allclose(offline.run(x), expected, **GRU_TOLERANCE)


def test_run_takes_a_dict_and_what_numpy_can_convert(gru: Model) -> None:
    x = noise(1, 4, 3)
    assert np.array_equal(gru.run({"x": x}), gru.run(x))
    assert np.array_equal(gru.run(x.tolist()), gru.run(x))


def test_run_begins_at_the_start_states_every_time(gru: Model) -> None:
    x = noise(2, 5, 3)
    assert np.array_equal(gru.run(x), gru.run(x))


def test_several_outputs_come_as_a_dict(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", outputs=("y", "total"))
    results = Model(tmp_path / "sum.onnx").run(np.ones((1, 3, 2), np.float32))
    assert isinstance(results, dict)
    assert np.array_equal(results["y"], [[[1, 1], [2, 2], [3, 3]]])
    assert np.array_equal(results["total"], [[3, 3]])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 4, 3)), "float64, but the artifact takes float32"),
        (np.zeros((1, 4, 3), np.dtype(">f4")), ">f4"),
        (np.zeros((4, 3), np.float32), r"shape \[4, 3\]"),
        (np.zeros((1, 4, 2), np.float32), r"shape \[1, 4, 2\]"),
        (np.zeros((1, 0, 3), np.float32), "no frame"),
        (np.zeros((0, 4, 3), np.float32), "no sequence"),
        ([[["a", "b", "c"]]], "not an array of float32"),
        ({"z": np.zeros((1, 4, 3), np.float32)}, r"missing: \['x'\], unknown: \['z'\]"),
        ({}, "missing"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(gru: Model, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gru.run(x)


def test_inputs_that_disagree_are_refused(tmp_path: Path) -> None:
    running_sum(tmp_path / "sum.onnx", inputs=("a", "b"))
    model = Model(tmp_path / "sum.onnx")
    a = np.ones((1, 3, 2), np.float32)
    with pytest.raises(InputError, match="disagree in their time axis"):
        model.run({"a": a, "b": a[:, :2]})
    with pytest.raises(InputError, match="has 2 inputs: a, b"):
        model.run(a)
    assert np.array_equal(model.run({"a": a, "b": a}), 2 * np.cumsum(a, axis=1))


def test_a_run_that_onnxruntime_refuses_is_an_input_error(tmp_path: Path) -> None:
    running_sum(tmp_path / "ids.onnx", table=np.eye(2))
    with pytest.raises(InputError, match="out of data bounds"):
        Model(tmp_path / "ids.onnx").run(np.array([[0, 2]]))


def test_threads_share_a_model(gru: Model) -> None:
    inputs = [noise(2, 30, 3, seed=seed) for seed in range(8)]
    expected = [gru.run(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(gru.run, inputs * 5))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 5, strict=True))
