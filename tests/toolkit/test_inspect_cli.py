"""`rnnx inspect` as a person and a program meet it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from artifacts import gru_artifact
from command_line import exit_code
from rnnx_runtime import Contract, State
from rnnx_runtime.contract import METADATA_KEY
from running_sums import running_sum

Capture = pytest.CaptureFixture[str]


def rewritten(path: Path, contract: Contract, **facts: Any) -> Path:
    """The artifact with other facts in its contract."""
    model = onnx.load(path)
    text = dataclasses.replace(contract, **facts).to_json()
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return path


def test_the_text_says_what_the_artifact_is(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "gru.onnx"
    contract = gru_artifact(path)
    output = dataclasses.replace(contract.outputs[0], delay=4)
    initial = np.ones(4, np.float32)
    rewritten(
        path,
        contract,
        outputs=(output,),
        states=(State("s000", "float32", ("batch", 4), "h", "rnn", 0, initial),),
        sample_rate=16000.0,
        labels=("no", "yes"),
        source={"torch": "2.13.0", "model": "Net", "arguments": [{"input": "x"}]},
        quantization={"level": "int8", "snr_db": {"y": 41.234}},
        checked={"against": "torch", "max_abs_difference": 1.5e-7},
    )
    assert exit_code("inspect", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path} (")
    assert lines[0].endswith(", streaming)")
    assert [line.split(maxsplit=1) for line in lines[1:3]] == [
        ["input", "x: float32[batch, time, 3]"],
        ["output", "y: float32[batch, time, 4], 4 frames late"],
    ]
    told = [" ".join(line.split()) for line in lines[3:]]
    assert told == [
        "states 1, 16 B for each sequence",
        "s000: float32[batch, 4], h, rnn layer 0, starts from learned values",
        "delay 4 frames (0.25 ms)",
        "chunks any number of frames",
        "sample rate 16000 frames a second",
        "labels no, yes",
        "operators 2 Transpose, 1 GRU",
        "source model Net; torch 2.13.0",
        "quantized level int8; snr db y 41.2",
        "checked against torch; max abs difference 1.5e-07",
    ]


def test_an_offline_artifact_has_no_delay(tmp_path: Path, capsys: Capture) -> None:
    gru_artifact(tmp_path / "gru.onnx", streaming=False)
    assert exit_code("inspect", tmp_path / "gru.onnx") == 0
    out = capsys.readouterr().out
    assert "offline" in out.splitlines()[0]
    assert "delay" not in out
    assert "states" not in out
    assert "run `rnnx check`" in out


def test_ids_tell_their_range(tmp_path: Path, capsys: Capture) -> None:
    running_sum(tmp_path / "ids.onnx", table=np.eye(7, 2))
    assert exit_code("inspect", tmp_path / "ids.onnx") == 0
    assert "x: int64[batch, time], ids 0 to 6" in capsys.readouterr().out


def test_json_is_the_contract_and_the_sizes(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "gru.onnx"
    contract = gru_artifact(path)
    assert exit_code("inspect", path, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record.pop("bytes") == path.stat().st_size
    assert record.pop("state_bytes") == 4 * 4
    assert record.pop("delay") == 0
    assert record.pop("step_operators") is None
    assert record == json.loads(contract.to_json())


def test_what_is_no_artifact_is_refused(tmp_path: Path, capsys: Capture) -> None:
    running_sum(tmp_path / "plain.onnx")
    model = onnx.load(tmp_path / "plain.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    (tmp_path / "text.onnx").write_text("not ONNX")
    for name, message in (
        ("plain.onnx", "carries no rnnx contract"),
        ("text.onnx", "cannot load"),
        ("none.onnx", "no file at"),
        ("", "is a directory"),
    ):
        assert exit_code("inspect", tmp_path / name) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err
