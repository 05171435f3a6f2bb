"""`rnnx quantize` as a person and a program meet it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quantizable import offline_artifact
from rnnx.cli import main
from rnnx.quantization import calibration
from rnnx.quantization.levels import LEVELS

pytestmark = pytest.mark.usefixtures("short_timing")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    offline_artifact(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_table_is_data_and_the_rest_is_talk(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = model.with_name("small.onnx")
    assert _run("quantize", model, "-o", small) == 0
    printed = capsys.readouterr()
    rows = printed.out.splitlines()
    assert rows[0].split(maxsplit=1) == ["int8", "measured on random inputs"]
    assert any(row.startswith("SNR of y") and row.endswith("dB") for row in rows)
    assert any(row.startswith("changed") and row.endswith("1 LSTM") for row in rows)
    assert any(row.endswith("whole sequences at a time, 2 sequences at once") for row in rows)
    assert any(row.startswith("invariance") and "depend a little on chunks" in row for row in rows)
    assert any(row.startswith("top-1 agreement") and row.endswith("%") for row in rows)
    assert f"rnnx bench {small} --against {model}" in printed.err
    assert "note: Measured on random inputs" in printed.err
    assert small.exists()


def test_json_is_all_of_stdout(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, data = model.with_name("small.onnx"), model.with_name("data.npz")
    np.savez(data, x=np.random.default_rng(0).normal(size=(9, 2, 16)).astype(np.float32))
    arguments = ["quantize", model, "-o", small, "--level", "int8-store", "--calibrate", data]
    assert _run(*arguments, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["level"] == "int8-store"
    assert record["measured_on"] == "calibration data"
    assert record["output_bytes"] == small.stat().st_size
    assert record["snr_db"].keys() == {"y"}


def test_tuning_tells_what_it_does(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("quantize", model, "-o", model.with_name("s.onnx"), "--tune", "--batch", "3") == 0
    printed = capsys.readouterr()
    assert "timing LSTM of 32 over 16 features ..." in printed.err
    assert "note: LSTM of 32 over 16 features: computed" in printed.err
    assert "whole sequences at a time, 3 sequences at once" in printed.out


GENERATOR = """
import numpy as np

rng = np.random.default_rng(0)

def batches():
    while True:
        yield rng.normal(size=(50, 4, 16)).astype(np.float32)
"""


def test_a_generator_without_end_is_data(
    model: Path,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "MOST_STEPS", 1000)
    (workplace / "batches.py").write_text(GENERATOR)
    small = model.with_name("small.onnx")
    arguments = ["quantize", model, "-o", small, "--level", "int8-store", "--json"]
    assert _run(*arguments, "--calibrate", "batches.py:batches") == 0
    assert json.loads(capsys.readouterr().out)["measured_on"] == "calibration data"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx"], "Give the file to write with -o"),
        (["model.onnx", "-o", "small.onnx", "--level", "int3"], "no level 'int3'"),
        (["model.onnx", "-o", "small.onnx", "--calibrate", "none.npz"], "no file at 'none.npz'"),
        (["model.onnx", "-o", "small.onnx", "--calibrate", "."], "holds no .npy or .npz file"),
        (["model.onnx", "-o", "small.onnx", "--calibrate", "none.py:f"], "no file at 'none.py'"),
        (
            ["model.onnx", "-o", "s.onnx", "--metric", "json:dumps"],
            "no sequences to be measured on",
        ),
        (["model.onnx", "--compare", "--metric", "json:dumps"], "no sequences to be measured on"),
        (["model.onnx", "-o", "small.onnx", "--chunk", "1"], "whole sequences, no chunks"),
        (["model.onnx", "--compare", "-o", "small.onnx"], "has no use for --output"),
        (["model.onnx", "--compare", "--budget", "snr=30"], "has no use for --budget"),
        (["model.onnx", "--compare", "--level", "int8"], "has no use for --level"),
        (
            ["model.onnx", "--compare", "--level", "auto", "--picture", "a.png"],
            "has no use for --level, --picture",
        ),
        (["model.onnx", "-o", "s", "--tune", "--level", "int8-store"], "nothing to tune"),
        (["none.onnx", "-o", "small.onnx"], "no file at 'none.onnx'"),
        (["model.onnx", "-o", "nowhere/small.onnx"], "no folder"),
        (["model.onnx", "-o", "./model.onnx"], "would overwrite 'model.onnx'"),
        (
            ["model.onnx", "-o", "./model.onnx", "--level", "auto", "--budget", "snr=35"],
            "would overwrite 'model.onnx'",
        ),
        (["model.onnx", "-o", ".", "--calibrate", "."], "would overwrite '.'"),
    ],
)
def test_misuse_ends_with_2_and_says_what_to_do(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(model.parent)
    before = model.read_bytes()
    assert _run("quantize", *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]
    assert model.read_bytes() == before


def test_help_names_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("quantize", "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"{level}:" in " ".join(shown.split()) for level in LEVELS)


def test_without_a_file_to_write_nothing_is_done(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("quantize", model) == 2
    assert "-o, or --compare" in capsys.readouterr().err
