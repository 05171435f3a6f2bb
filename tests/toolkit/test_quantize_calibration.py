"""Calibration data: every form it may have, and every way in which it may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rnnx.quantization.calibration import random_calibration, read_calibration
from rnnx_runtime import Contract, InputError, Port

Array = npt.NDArray[Any]

X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
ONE = Contract(
    inputs=(Port("x", "float32", ("batch", "time", 3), 0, 1),),
    outputs=(Port("y", "float32", ("batch", "time", 3), 0, 1),),
)
TWO = Contract(
    inputs=(*ONE.inputs, Port("ids", "int64", ("batch", "time"), 0, 1, num_embeddings=7)),
    outputs=ONE.outputs,
)


class _Tensor:
    """What torch and others give: neither an array nor a mapping, but convertible."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return X

    def __iter__(self) -> Any:
        raise AssertionError("a tensor is one run, not one for each of its rows")


@pytest.mark.parametrize("form", [X, {"x": X}, [X], ({"x": X},), iter([X]), _Tensor()])
def test_one_run_in_any_form(form: Any) -> None:
    (run,) = read_calibration(form, ONE)
    assert list(run) == ["x"]
    np.testing.assert_array_equal(run["x"], X)


def test_files_hold_one_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    ids = np.arange(10).reshape(2, 5) % 7
    np.savez(tmp_path / "two.npz", x=X, ids=ids)
    (run,) = read_calibration(str(tmp_path / "x.npy"), ONE)
    np.testing.assert_array_equal(run["x"], X)
    (run,) = read_calibration(tmp_path / "two.npz", TWO)
    np.testing.assert_array_equal(run["ids"], ids)


def test_runs_of_different_lengths_are_kept_apart(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    runs = read_calibration([X[:, :2], {"x": X}, tmp_path / "x.npy"], ONE)
    assert [run["x"].shape[1] for run in runs] == [2, 5, 5]


def _spoilt(index: tuple[int, ...], value: float) -> Array:
    array = X.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "is empty"),
        (X[:, :0], r"'x' is empty: shape \[2, 0, 3\]"),
        (X[:0], "'x' is empty"),
        (X[0], r"shape \[5, 3\]"),
        (X[..., :2], r"shape \[2, 5, 2\]"),
        (X.astype(np.float64), "float64"),
        ({"y": X}, "unknown"),
        ({}, "missing"),
        (_spoilt((1, 4, 2), np.nan), r"'x' holds nan at \[1, 4, 2\]"),
        ([X, _spoilt((0, 0, 1), -np.inf)], r"'x' holds -inf at \[0, 0, 1\]"),
        (np.full_like(X, 0.5), "one value only"),
        ([np.ones_like(X), np.ones_like(X[:1])], "one value only"),
        (3.5, "cannot be a float"),
        ([X, None], "cannot be a NoneType"),
        ("nowhere.npz", "no file"),
    ],
)
def test_what_does_not_fit_is_refused(calibration: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_calibration(calibration, ONE)


def _text(path: Path) -> None:
    path.write_text("0.1, 0.2")


def _pickled(path: Path) -> None:
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)


def _cut_off(path: Path) -> None:
    np.savez(path, x=X)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("write", [_text, _pickled, _cut_off])
@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_files_that_are_not_plain_arrays_are_refused(
    tmp_path: Path, write: Callable[[Path], None], name: str
) -> None:
    path = tmp_path / "data.npz"
    if write is _pickled:
        path = tmp_path / "data.npy"
    write(path)
    target = path.rename(tmp_path / name)
    with pytest.raises(InputError, match=r"no \.npy or \.npz file of plain arrays") as failure:
        read_calibration(target, ONE)
    assert "np.savez" in str(failure.value.hint)


def test_a_constant_input_beside_a_varying_one_is_data() -> None:
    ids = np.full((2, 5), 3)
    assert len(read_calibration({"x": X, "ids": ids}, TWO)) == 1


def test_random_inputs_fit_the_contract() -> None:
    (run,) = random_calibration(TWO)
    assert read_calibration(run, TWO)
    assert run["ids"].min() >= 0
    assert 1 < len(np.unique(run["ids"])) <= 7


def test_random_inputs_of_onnx_from_elsewhere_take_the_first_free_axis_for_the_batch() -> None:
    ports = (Port("x", "float32", ("n", "length", 3)), Port("gain", "float32", (4,)))
    (run,) = random_calibration(Contract(inputs=ports, outputs=()))
    assert run["x"].shape == (2, 64, 3)
    assert run["gain"].shape == (4,)
