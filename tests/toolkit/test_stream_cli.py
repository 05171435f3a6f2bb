"""`rnnx stream` as a person and a program meet it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts import gru_artifact
from command_line import exit_code, listing
from rnnx_runtime import Model
from running_sums import frames, running_sum

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def adder(tmp_path: Path) -> Path:
    running_sum(tmp_path / "adder.onnx")
    return tmp_path / "adder.onnx"


def saved_csv(path: Path, rows: Any) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    return path


def saved_wav(path: Path, rows: Any) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((rows.shape[1], 2, 8000, 0, "NONE", ""))
        file.writeframes(rows.astype("<i2").tobytes())


def table(text: str) -> Any:
    return np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1, ndmin=2)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_every_frame_comes_out_once(
    tmp_path: Path, adder: Path, capsys: Capture, chunk: int, flags: list[str]
) -> None:
    rows = frames(20)
    data = saved_csv(tmp_path / "data.csv", rows)
    assert exit_code("stream", adder, "--input", data, "--chunk", chunk, *flags) == 0
    printed = capsys.readouterr()
    if flags:
        found = [json.loads(line) for line in printed.out.splitlines()]
        assert [row["frame"] for row in found] == list(range(20))
        sums = [row["y"] for row in found]
    else:
        assert printed.out.startswith("frame,y0,y1\n")
        assert np.array_equal(table(printed.out)[:, 0], np.arange(20))
        sums = table(printed.out)[:, 1:]
    assert np.array_equal(sums, np.cumsum(rows, axis=0))
    assert printed.err == "20 frames in, 20 rows out, delay 0 frames\n"


def test_a_gru_says_what_the_model_says(tmp_path: Path, capsys: Capture) -> None:
    gru_artifact(tmp_path / "gru.onnx")
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    exit_code("stream", tmp_path / "gru.onnx", "--input", tmp_path / "x.npy", "--chunk", 4)
    found = table(capsys.readouterr().out)[:, 1:].astype(np.float32)
    assert np.array_equal(found, Model(tmp_path / "gru.onnx").run(x[None])[0])


def test_stdin_is_answered_line_by_line(adder: Path) -> None:
    command = [sys.executable, "-c", "from rnnx.cli import main; main()"]
    with subprocess.Popen(
        [*command, "stream", str(adder), "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "frame,y0,y1\n"
        for frame in range(5):
            process.stdin.write("1,2\n")
            process.stdin.flush()  # the pipe stays open: the answer must not wait for its end
            assert process.stdout.readline() == f"{frame},{frame + 1}.0,{2 * frame + 2}.0\n"
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("dims", "expected"),
    [(("time", "batch", 2), ["0,1.0,2.0", "1,4.0,6.0"]), (("time", 2), ["0,1.0,2.0", "1,4.0,6.0"])],
)
def test_other_layouts(
    tmp_path: Path, capsys: Capture, dims: tuple[Any, ...], expected: list[str]
) -> None:
    running_sum(tmp_path / "adder.onnx", dims=dims)
    data = saved_csv(tmp_path / "data.csv", [[1, 2], [3, 4]])
    assert exit_code("stream", tmp_path / "adder.onnx", "--input", data, "--chunk", 2) == 0
    assert capsys.readouterr().out.splitlines()[1:] == expected


def test_whole_numbers_in_and_out(tmp_path: Path, capsys: Capture) -> None:
    running_sum(tmp_path / "adder.onnx", dtype="int64")
    data = saved_csv(tmp_path / "data.csv", [[1, 2**40], [3, 4]])
    assert exit_code("stream", tmp_path / "adder.onnx", "--input", data) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"0,1,{2**40}", f"1,4,{2**40 + 4}"]


def test_an_output_without_time_axis_makes_a_row_a_feed(tmp_path: Path, capsys: Capture) -> None:
    running_sum(tmp_path / "total.onnx", outputs=("total",))
    data = saved_csv(tmp_path / "data.csv", [[1, 2]] * 5)
    assert exit_code("stream", tmp_path / "total.onnx", "--input", data, "--chunk", 2) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "frame,total0,total1",
        "1,2.0,4.0",
        "3,4.0,8.0",
        "4,5.0,10.0",
    ]
    assert "5 frames in, 3 rows out" in printed.err


def test_several_inputs_and_outputs(tmp_path: Path, capsys: Capture) -> None:
    running_sum(tmp_path / "adder.onnx", inputs=("a", "b"), outputs=("y", "total"))
    np.savez(tmp_path / "data.npz", a=[[1, 2], [3, 4.0]], b=[[10, 20], [30, 40.0]])
    data = tmp_path / "data.npz"
    assert exit_code("stream", tmp_path / "adder.onnx", "--input", data, "--json") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"frame": 0, "y": [11, 22], "total": [11, 22]},
        {"frame": 1, "y": [44, 66], "total": [44, 66]},
    ]


@pytest.mark.parametrize(("flags", "out"), [([], "frame,y0,y1\n"), (["--json"], "")])
def test_no_frames_are_no_rows(
    tmp_path: Path, adder: Path, capsys: Capture, flags: list[str], out: str
) -> None:
    (tmp_path / "empty.csv").touch()
    assert exit_code("stream", adder, "--input", tmp_path / "empty.csv", *flags) == 0
    printed = capsys.readouterr()
    assert printed.out == out
    assert "0 frames in, 0 rows out" in printed.err


def test_output_goes_to_a_file_whole(tmp_path: Path, adder: Path, capsys: Capture) -> None:
    data, out = saved_csv(tmp_path / "data.csv", [[1, 2], [3, 4]]), tmp_path / "out.csv"
    assert exit_code("stream", adder, "--input", data, "-o", out) == 0
    assert capsys.readouterr().out == ""
    assert out.read_text() == "frame,y0,y1\n0,1.0,2.0\n1,4.0,6.0\n"


@pytest.mark.parametrize("name", ["data.csv", "adder.onnx"])
def test_what_is_read_is_not_written_over(
    tmp_path: Path, adder: Path, capsys: Capture, name: str
) -> None:
    data = saved_csv(tmp_path / "data.csv", [[1, 2], [3, 4]])
    before = listing(tmp_path)
    assert exit_code("stream", adder, "--input", data, "-o", tmp_path / "." / name) == 2
    assert f"{name}', which is read" in capsys.readouterr().err
    assert listing(tmp_path) == before


def test_after_an_error_the_output_file_is_as_before(
    tmp_path: Path, adder: Path, capsys: Capture
) -> None:
    data, out = saved_csv(tmp_path / "data.csv", [[1, 2], [3, "x"]]), tmp_path / "out.csv"
    out.write_text("before")
    before = sorted(tmp_path.iterdir())
    assert exit_code("stream", adder, "--input", data, "-o", out) == 2
    assert out.read_text() == "before"
    assert sorted(tmp_path.iterdir()) == before
    assert "data.csv, line 2, column 2: 'x' is not a number" in capsys.readouterr().err


def test_rows_before_an_error_have_come(tmp_path: Path, adder: Path, capsys: Capture) -> None:
    data = saved_csv(tmp_path / "data.csv", [[1, 2], [3]])
    assert exit_code("stream", adder, "--input", data) == 2
    printed = capsys.readouterr()
    assert printed.out == "frame,y0,y1\n0,1.0,2.0\n"
    assert "line 2: 1 columns, but input x: float32[batch, time, 2] takes 2" in printed.err
    assert "hint: " in printed.err


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [["x", 2]], [["nan", 2]]])
def test_a_first_row_that_is_refused_leaves_stdout_empty(
    tmp_path: Path, adder: Path, capsys: Capture, rows: list[list[Any]]
) -> None:
    data = saved_csv(tmp_path / "data.csv", rows)
    assert exit_code("stream", adder, "--input", data, "--strict") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shape", [(1, 40, 5), (40, 5)])
def test_an_array_that_does_not_fit_is_named_with_all_of_its_shape(
    tmp_path: Path, adder: Path, capsys: Capture, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape))
    assert exit_code("stream", adder, "--input", tmp_path / "x.npy", "--chunk", 4) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"x.npy' holds an array of shape {list(shape)}" in printed.err
    assert "hint: Give one of shape [frames, 2]." in printed.err


def test_strict_refuses_nan_and_the_default_does_not(
    tmp_path: Path, adder: Path, capsys: Capture
) -> None:
    data = saved_csv(tmp_path / "data.csv", [[1, 2], ["nan", 4]])
    assert exit_code("stream", adder, "--input", data, "--strict") == 2
    assert "holds nan at index [0, 0, 0] (after 1 frames)" in capsys.readouterr().err
    assert exit_code("stream", adder, "--input", data) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1,nan,6.0"


def test_without_a_resampler_another_rate_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    running_sum(tmp_path / "adder.onnx", sample_rate=16000.0)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8))
    assert exit_code("stream", tmp_path / "adder.onnx", "--input", tmp_path / "a.wav") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a.wav' from 8000 to 16000 frames a second needs the package 'soxr'" in printed.err
    assert "hint: pip install 'rnnx[audio]'" in printed.err


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.jsonl", "x.wav"])
def test_the_base_install_reads_these(
    tmp_path: Path, adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for package in ("soundfile", "soxr", "sounddevice"):
        monkeypatch.setitem(sys.modules, package, None)
    rows, path = frames(20), tmp_path / name
    writers: dict[str, Callable[[], object]] = {
        "x.npy": lambda: np.save(path, rows),
        "x.npz": lambda: np.savez(path, x=rows),
        "x.csv": lambda: saved_csv(path, rows),
        "x.jsonl": lambda: path.write_text("".join(f'{{"x": {row}}}\n' for row in rows.tolist())),
        "x.wav": lambda: saved_wav(path, rows),
    }
    writers[name]()
    assert exit_code("stream", adder, "--input", path, "--chunk", 3) == 0
    sums = table(capsys.readouterr().out)[:, -2:].astype(np.float32)
    scale = np.float32(2**15 if name == "x.wav" else 1)
    assert np.array_equal(sums * scale, np.cumsum(rows, axis=0))


def test_progress_shows_on_a_terminal_only(
    tmp_path: Path, adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = saved_csv(tmp_path / "data.csv", frames(10)), tmp_path / "out.csv"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert exit_code("stream", adder, "--input", data, "-o", out) == 0
    assert "100%" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert exit_code("stream", adder, "--input", data) == 0
    assert "%" not in capsys.readouterr().err  # rows are on that terminal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "none.csv"], "does not exist"),
        (["--input", "none.csv"], "hint: Check the path."),
        (["--input", "."], "hint: Give a folder for the results with -o"),
        ([], "Missing option '--input'"),
        (["--input", "-", "--every", "9"], "without --checkpoint has no use for --every"),
        (["--input", "-", "--chunk", "0"], "is not in the range x>=1"),
    ],
)
def test_misuse(adder: Path, capsys: Capture, options: list[str], message: str) -> None:
    assert exit_code("stream", adder, *options) == 2
    assert message in capsys.readouterr().err


def test_an_offline_artifact_is_refused(tmp_path: Path, capsys: Capture) -> None:
    gru_artifact(tmp_path / "gru.onnx", streaming=False)
    data = saved_csv(tmp_path / "data.csv", [[1, 2, 3]])
    assert exit_code("stream", tmp_path / "gru.onnx", "--input", data) == 2
    assert "hint: Export it with streaming=True" in capsys.readouterr().err
