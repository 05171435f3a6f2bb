"""Calibration data: every form it may have, and every way in which it may be wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rnnx.quantization import calibration as reading
from rnnx.quantization.calibration import random_calibration, read_calibration
from rnnx_runtime import Contract, InputError, Port
from rnnx_runtime.errors import SpecError

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
        (X[:, :1], "too short: no sequence of it has a second frame"),
        ([X, X[0]], r"run 2: input 'x' has shape \[5, 3\]"),
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


def test_fewer_frames_than_the_first_output_needs_are_too_short() -> None:
    strided = replace(ONE, first_chunk=6, chunk_multiple=2)
    with pytest.raises(InputError, match="hold 5 frames, the network needs 6"):
        read_calibration(X, strided)


def test_a_folder_holds_a_run_in_each_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    for frames in (4, 2, 3):
        np.save(tmp_path / f"part{frames}.npy", X[:, :frames])
    np.savez(tmp_path / "last.npz", x=X)
    (tmp_path / "about.txt").write_text("recorded on a Monday")
    for folder in (tmp_path, str(tmp_path)):
        assert _frames(read_calibration(folder, ONE)) == [5, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("b.npy", X[..., :2], r"b\.npy: input 'x' has shape \[2, 5, 2\]"),
        ("b.npy", X.astype(np.float64), r"b\.npy: input 'x' is float64"),
        ("b.npy", _spoilt((0, 3, 1), np.nan), r"b\.npy: .* nan at \[0, 3, 1\]"),
        ("b.npz", X, r"b\.npz: the artifact's inputs are x; missing: \['x'\]"),
    ],
)
def test_errors_name_the_file_of_a_folder(
    tmp_path: Path, name: str, array: Array, message: str
) -> None:
    np.save(tmp_path / "a.npy", X)
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, array)
    with pytest.raises(InputError, match=message):
        read_calibration(tmp_path, ONE)


def test_a_folder_without_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "about.txt").write_text("recorded on a Monday")
    with pytest.raises(InputError, match=r"holds no \.npy or \.npz file") as failure:
        read_calibration(tmp_path, ONE)
    assert "np.savez" in str(failure.value.hint)


GENERATORS = """
import numpy as np

rng = np.random.default_rng(0)

def endless():
    while True:
        yield rng.normal(size=(2, 5, 3)).astype(np.float32)

def named():
    yield {"x": next(endless())}

def returned():
    return [next(endless()), next(endless())]

def empty():
    yield from ()

def failing():
    yield next(endless())
    raise KeyError("the second")

def exiting():
    raise SystemExit(3)

def absent():
    yield next(endless())
    yield None

def wrong():
    yield next(endless())
    yield next(endless())[0]

def typed():
    yield next(endless()).astype(np.float64)

value = 3
"""


@pytest.fixture
def generators(workplace: Path) -> None:
    (workplace / "heldout.py").write_text(GENERATORS)


@pytest.mark.usefixtures("generators")
@pytest.mark.parametrize(("name", "count"), [("named", 1), ("returned", 2)])
@pytest.mark.parametrize("module", ["heldout", "heldout.py", "./heldout.py"])
def test_a_function_gives_runs(module: str, name: str, count: int) -> None:
    assert _frames(read_calibration(f"{module}:{name}", ONE)) == [5] * count


@pytest.mark.usefixtures("generators")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", r"'heldout\.py:empty' yields nothing"),
        ("failing", r"'heldout\.py:failing' raised KeyError: 'the second' \(at .*heldout\.py:21"),
        ("exiting", r"'heldout\.py:exiting' raised SystemExit: 3"),
        ("absent", r"run 2 of 'heldout\.py:absent': .* cannot be a NoneType"),
        ("wrong", r"run 2 of 'heldout\.py:wrong': .* shape \[5, 3\]"),
        ("typed", r"run 1 of 'heldout\.py:typed': input 'x' is float64"),
    ],
)
def test_a_function_that_gives_no_data_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_calibration(f"heldout.py:{name}", ONE)


@pytest.mark.usefixtures("generators")
@pytest.mark.parametrize("name", ["value", "none"])
def test_what_is_no_function_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=name):
        read_calibration(f"heldout.py:{name}", ONE)


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "part:x.npy", X)
    assert _frames(read_calibration(str(tmp_path / "part:x.npy"), ONE)) == [5]


@pytest.mark.usefixtures("generators")
def test_endless_data_is_read_until_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_STEPS", 45)  # of 2 sequences of 5 frames a run
    assert len(read_calibration("heldout.py:endless", ONE)) == 5
    assert len(read_calibration(itertools.repeat(X), ONE)) == 5
    assert len(read_calibration(itertools.repeat(X), replace(ONE, chunk_multiple=5))) == 23
    (run,) = read_calibration(np.concatenate([X] * 30), ONE)  # a run is never cut
    assert run["x"].shape == (60, 5, 3)


def test_endless_data_is_bounded_where_the_artifact_does_not_tell_its_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "MOST_STEPS", 45)
    free = Contract(inputs=(Port("x", "float32", ("n", "length", 3)),), outputs=())
    assert len(read_calibration(itertools.repeat(X), free)) == 5


def test_the_rest_of_a_folder_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "b.npy").write_text("damaged")
    monkeypatch.setattr(reading, "MOST_STEPS", 10)
    assert len(read_calibration(tmp_path, ONE)) == 1
    monkeypatch.setattr(reading, "MOST_STEPS", 11)
    with pytest.raises(InputError, match=r"b\.npy"):
        read_calibration(tmp_path, ONE)


def test_labels_are_kept_where_a_metric_reads_them_and_else_refused() -> None:
    run = {"x": X, "words": np.array(["yes", "no"])}
    (kept,) = read_calibration(run, ONE, has_labels=True)
    assert kept["words"].tolist() == ["yes", "no"]
    with pytest.raises(InputError, match="words"):
        read_calibration(run, ONE)


def _frames(runs: list[dict[str, Array]]) -> list[int]:
    return [run["x"].shape[1] for run in runs]


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
