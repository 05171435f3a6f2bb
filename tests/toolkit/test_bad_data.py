"""Data, weights and specs that do not fit: one `error:` sentence, exit code 2, nothing written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import assert_refused, listing, run

Capture = pytest.CaptureFixture[str]

NET = """
from networks import NETWORKS


def gru():
    return NETWORKS["wide"]()


def broken():
    raise ValueError("no such size")
"""


@pytest.fixture(autouse=True)
def folder(workplace: Path, exported: Callable[..., Path]) -> Path:
    """`m.onnx`, a streaming GRU of 4 features, and `net.py:gru`, which it came from."""
    (workplace / "net.py").write_text(NET)
    (workplace / "m.onnx").write_bytes(exported("wide", streaming=True).read_bytes())
    return workplace


def refuse(capsys: Capture, folder: Path, says: str, *arguments: object) -> None:
    before = listing(folder)
    assert_refused(run(capsys, *arguments), says)
    assert listing(folder) == before


def _save(array: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def _savez(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def _write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


DATA: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "too many features": ("d.npy", _save(np.zeros((9, 5), np.float32)), "shape [9, 5]"),
    "too many axes": ("d.npy", _save(np.zeros((1, 1, 9, 4), np.float32)), "shape [1, 1, 9, 4]"),
    "two sequences": ("d.npy", _save(np.zeros((2, 9, 4), np.float32)), "2 sequences"),
    "text": ("d.npy", _save(np.array([["a"] * 4])), "holds values of <U1"),
    "complex": ("d.npy", _save(np.zeros((9, 4), complex)), "cannot take"),
    "too large": ("d.npy", _save(np.full((9, 4), 1e300)), "cannot take"),
    "objects": ("d.npy", _save(np.array([[{}] * 4])), "not a sound NumPy file"),
    "no array": ("d.npy", _write("1,2,3,4\n"), "not a sound NumPy file"),
    "no bytes": ("d.npy", _write(""), "not a sound NumPy file"),
    "another name": ("d.npz", _savez(y=np.zeros((9, 4), np.float32)), "lacks the inputs x"),
    "no archive": ("d.npz", _write("PK"), "not a sound NumPy file"),
    "no wav": ("d.wav", _write("RIFF"), "is not a sound file that can be read"),
    "ragged rows": ("d.csv", _write("1,2,3,4\n1,2,3\n"), "line 2: 3 columns"),
    "too many columns": ("d.csv", _write("1,2,3,4,5\n"), "line 1: 5 columns"),
    "a word": ("d.csv", _write("1,2,3,4\n1,2,three,4\n"), "line 2, column 3: 'three'"),
    "another kind": ("d.mp3", _write("ID3"), "is none of .wav"),
    "no kind": ("d", _write("1,2,3,4\n"), "is none of .wav"),
}


@pytest.mark.parametrize(("name", "write", "says"), DATA.values(), ids=DATA)
def test_stream_refuses_data_that_does_not_fit(
    capsys: Capture, folder: Path, name: str, write: Callable[[Path], None], says: str
) -> None:
    write(folder / name)
    refuse(capsys, folder, says, "stream", "m.onnx", "--input", name, "-o", "y.csv")


CALIBRATION: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "too many features": ("d.npy", _save(np.zeros((2, 9, 5), np.float32)), "[2, 9, 5]"),
    "too few axes": ("d.npy", _save(np.zeros(4, np.float32)), "[4]"),
    "another dtype": ("d.npy", _save(np.zeros((2, 9, 4), np.int64)), "int64"),
    "no frames": ("d.npy", _save(np.zeros((2, 0, 4), np.float32)), "is empty"),
    "no sequences": ("d.npy", _save(np.zeros((0, 9, 4), np.float32)), "is empty"),
    "objects": ("d.npy", _save(np.array([{}])), "no .npy or .npz file of plain arrays"),
    "no bytes": ("d.npy", _write(""), "no .npy or .npz file of plain arrays"),
    "another name": ("d.npz", _savez(y=np.zeros((2, 9, 4), np.float32)), "unknown: ['y']"),
}


@pytest.mark.parametrize(("name", "write", "says"), CALIBRATION.values(), ids=CALIBRATION)
def test_quantize_refuses_calibration_that_does_not_fit(
    capsys: Capture, folder: Path, name: str, write: Callable[[Path], None], says: str
) -> None:
    write(folder / name)
    options = ("-o", "small.onnx", "--calibrate", name)
    refuse(capsys, folder, says, "quantize", "m.onnx", *options)


EXPORTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no frames": ("d.npz", _savez(x=np.zeros((2, 0, 4), np.float32)), "does not run on"),
    "no sequences": ("d.npz", _savez(x=np.zeros((0, 7, 4), np.float32)), "holds nothing"),
    "another dtype": ("d.npz", _savez(x=np.zeros((2, 7, 4), np.int64)), "does not run on"),
    "too many features": ("d.npz", _savez(x=np.zeros((2, 7, 5), np.float32)), "does not run on"),
    "another name": ("d.npz", _savez(y=np.zeros((2, 7, 4), np.float32)), "unknown: ['y']"),
    "text": ("d.npz", _savez(x=np.array(["a"])), "'x' is of dtype <U1"),
    "objects": ("d.npz", _savez(x=np.array([{}])), "not an .npz archive"),
    "no archive": ("d.npz", _write("PK"), "not an .npz archive"),
}


@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["offline", "streaming"])
@pytest.mark.parametrize(("name", "write", "says"), EXPORTS.values(), ids=EXPORTS)
def test_export_refuses_examples_that_do_not_fit(
    capsys: Capture,
    folder: Path,
    name: str,
    write: Callable[[Path], None],
    says: str,
    streaming: list[str],
) -> None:
    write(folder / name)
    options = ("-o", "new.onnx", "--inputs", name, *streaming)
    refuse(capsys, folder, says, "export", "net.py:gru", *options)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("verb", ["export", "check"])
@pytest.mark.parametrize(
    "data", [pickle.dumps(Bomb()), b"", b"text", b"PK\x03\x04"], ids=["code", "no", "text", "zip"]
)
def test_weights_that_are_none(capsys: Capture, folder: Path, verb: str, data: bytes) -> None:
    (folder / "w.pt").write_bytes(data)
    spec = (
        ("net.py:gru", "-o", "new.onnx")
        if verb == "export"
        else ("m.onnx", "--against", "net.py:gru")
    )
    refuse(capsys, folder, "'w.pt' is not a file of weights", verb, *spec, "--weights", "w.pt")


@pytest.mark.parametrize("verb", ["export", "check"])
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("net.py:broken", "raised ValueError: no such size (at "),
        ("net.py:gone", "'net.py' has no 'gone'"),
        ("gone.py:make", "no file at 'gone.py'"),
        ("gone.pt2", "no file at 'gone.pt2'"),
        ("net.py", "names no model"),
    ],
)
def test_a_spec_that_names_no_model(
    capsys: Capture, folder: Path, verb: str, spec: str, says: str
) -> None:
    options = (spec, "-o", "new.onnx") if verb == "export" else ("m.onnx", "--against", spec)
    refuse(capsys, folder, says, verb, *options)


# --- NaN is data


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_is_passed_on_and_refused_when_asked(
    capsys: Capture, folder: Path, value: str
) -> None:
    (folder / "d.csv").write_text(f"1,2,3,4\n1,{value},3,4\n1,2,3,4\n")
    arguments = ("stream", "m.onnx", "--input", "d.csv", "-o", "y.csv")
    refuse(
        capsys, folder, f"holds {value} at index [0, 0, 1] (after 1 frames)", *arguments, "--strict"
    )
    assert run(capsys, *arguments).code == 0
    assert len((folder / "y.csv").read_text().splitlines()) == 4


def test_no_frames_are_no_error(capsys: Capture, folder: Path) -> None:
    (folder / "d.csv").write_text("a,b,c,d\n")
    ended = run(capsys, "stream", "m.onnx", "--input", "d.csv", "--json")
    assert (ended.code, ended.out) == (0, "")
    assert "0 frames in, 0 rows out" in ended.err
