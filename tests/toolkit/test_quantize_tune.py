"""`quantize(tune=True)`: each recurrent layer is computed the way that was timed as the fastest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import rnnx
from artifacts import gru_artifact
from quantizable import offline_artifact, streaming_lstm
from rnnx.bench import Timing
from rnnx.quantization import quality, tuning
from rnnx.quantization.calibration import Feeds

pytestmark = pytest.mark.usefixtures("short_timing")

QUANTIZED = {"operator": "DynamicQuantizeLSTM", "gates": "DynamicQuantizeMatMul"}


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[set[str]]]:
    """Sets made-up times of a step; gives the ways that are timed, measurement by measurement."""

    def made_up(*ratios: Mapping[str, float]) -> list[set[str]]:
        asked: list[set[str]] = []

        def measure(steps: Mapping[str, Callable[[], object]], *, seconds: float) -> object:
            found = ratios[len(asked)]
            asked.append(set(steps))
            for step in steps.values():
                step()
            return {way: Timing(1, 1.0, 1.0, 1.0, found[way]) for way in steps}

        monkeypatch.setattr(tuning, "measure", measure)
        return asked

    return made_up


def _operators(path: Path) -> Mapping[str, int]:
    return rnnx.load_contract(path).operators


@pytest.mark.parametrize(
    ("gates", "operator", "way"),
    [
        (0.5, 0.6, "gates"),
        (0.6, 0.5, "operator"),
        (1.2, 0.9, "operator"),
        (1.2, 1.1, "float"),
        (0.99, 0.98, "float"),  # no more than noise
    ],
)
def test_the_fastest_way_is_taken(
    tmp_path: Path, times: Callable[..., list[set[str]]], gates: float, operator: float, way: str
) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    asked = times({"float": 1.0, "gates": gates, "operator": operator})
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", tune=True)
    assert asked == [{"float", "gates", "operator"}]
    operators = _operators(tmp_path / "s.onnx")
    assert {name for name, quantized in QUANTIZED.items() if quantized in operators} == {way} - {
        "float"
    }
    assert ("LSTM" in operators) == (way == "float")
    (told,) = (note for note in report.notes if note.startswith("LSTM of 32 over 16 features:"))
    assert f"{gates:.2f} by quantized operators for its gates" in told
    assert f"{operator:.2f} by one quantized operator" in told


def test_layers_alike_are_timed_once_and_all_others_by_themselves(
    tmp_path: Path, times: Callable[..., list[set[str]]]
) -> None:
    """The first layer has 16 features, the second and the third 32."""
    offline_artifact(tmp_path / "m.onnx", "GRU", layers=3)
    asked = times({"float": 1.0, "gates": 2.0}, {"float": 1.0, "gates": 0.5})
    told: list[str] = []
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", tune=True, tell=told.append)
    assert asked == [{"float", "gates"}] * 2
    assert _operators(tmp_path / "s.onnx")["GRU"] == 1
    assert _operators(tmp_path / "s.onnx")["Scan"] == 2
    assert told == [
        "timing GRU of 32 over 16 features ...",
        "timing GRU of 32 over 32 features ...",
    ]


def test_in_blocks_there_is_no_operator_for_lstm(
    tmp_path: Path, times: Callable[..., list[set[str]]]
) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    asked = times({"float": 1.0, "gates": 0.5})
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level="int8-block", tune=True)
    assert asked == [{"float", "gates"}]
    assert "MatMulNBits" in _operators(tmp_path / "s.onnx")


def test_it_is_timed_as_it_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: Callable[..., list[set[str]]]
) -> None:
    gru_artifact(tmp_path / "m.onnx", features=16, hidden_size=32)
    times({"float": 1.0, "gates": 1.0})
    steps: list[tuple[int, int | None]] = []

    class _Noting(quality._Streamed):
        def step(self, feeds: Feeds, chunk: int | None = None) -> Callable[[], object]:
            steps.append((len(feeds["x"]), chunk))
            return super().step(feeds, chunk)

    monkeypatch.setattr(quality, "_Streamed", _Noting)
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", chunk=6, batch=3, tune=True)
    assert steps == [(3, 6)] * 4  # two ways, then the original and the result


@pytest.mark.parametrize("level", ["fp16-store", "int8-store"])
def test_a_level_that_only_keeps_is_not_tuned(tmp_path: Path, level: str) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    with pytest.raises(rnnx.InputError, match="nothing to tune") as failure:
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level=level, tune=True)
    assert failure.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("level", ["int8", "int8-block", "int4"])
def test_a_real_choice_is_one_of_the_ways(tmp_path: Path, level: str) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level=level, tune=True)
    ways = "in float32|by one quantized operator|by quantized operators for its gates"
    assert re.match(f"LSTM of 32 over 16 features: computed ({ways});", report.notes[0])
