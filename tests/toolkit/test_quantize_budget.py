"""Budgets, those of the user's own metric among them: held on the file that is written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnx
from command_line import run
from quantizable import offline_artifact, streaming_lstm
from rnnx.parity import Metric
from rnnx.quantization import original
from rnnx.quantization.budget import Budget
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.report import Point

pytestmark = pytest.mark.usefixtures("short_timing")

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    streaming_lstm(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def outputs(path: Path, x: Array) -> Array:
    """One frame after another."""
    stream = rnnx.Stream(path, batch=len(x))
    return np.concatenate([np.asarray(stream.feed(x[:, [t]])) for t in range(x.shape[1])], axis=1)


@pytest.fixture
def data(model: Path) -> Arrays:
    """Inputs, and labels that the network itself gets right, but for a tenth."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 60, 16)).astype(np.float32)
    classes = outputs(model, x).argmax(-1)
    wrong = rng.random(classes.shape) < 0.1
    return {"x": x, "classes": np.where(wrong, (classes + 1) % 32, classes)}


def accuracy(found: Arrays, inputs: Arrays) -> float:
    return float((found["y"].argmax(-1) == inputs["classes"]).mean())


def error_rate(found: Arrays, inputs: Arrays) -> float:
    return 1.0 - accuracy(found, inputs)


@pytest.mark.parametrize(
    ("metric", "budget", "most"),
    [
        (accuracy, "metric=-10%", 0.1),
        pytest.param(accuracy, "metric=-1%", 0.01, marks=pytest.mark.full),
        (accuracy, "metric=-0%", 0.0),
        (error_rate, "metric=+60%", 0.6),
        pytest.param(error_rate, "metric=+10%", 0.1, marks=pytest.mark.full),
    ],
)
def test_the_file_keeps_the_metric_and_no_smaller_level_does(
    model: Path, data: Arrays, metric: Any, budget: str, most: float
) -> None:
    small = model.with_name("small.onnx")
    report = rnnx.quantize(
        model, small, level="auto", budget=budget, calibration=data, metric=metric
    )
    figures = {p: metric({"y": outputs(p, data["x"])}, data) for p in (model, small)}
    assert (report.source_figure, report.figure) == pytest.approx(tuple(figures.values()))
    sign = 1 if metric is accuracy else -1
    least = sign * figures[model] - most * figures[model] - 1e-12
    assert sign * figures[small] >= least
    for level in LEVELS:
        path = model.with_name(f"{level}.onnx")
        rnnx.quantize(model, path, level=level, calibration=data["x"])
        if sign * metric({"y": outputs(path, data["x"])}, data) >= least:
            assert report.output_bytes <= path.stat().st_size + 1024  # records differ in length


def test_report_front_contract_and_command_tell_the_figures(
    model: Path, data: Arrays, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(workplace / "data.npz", **data)
    (workplace / "score.py").write_text(
        "def hits(outputs, inputs):\n"
        "    return (outputs['y'].argmax(-1) == inputs['classes']).mean()\n"
    )
    command = ["quantize", model, "-o", workplace / "s.onnx", "--level", "auto"]
    command += ["--budget", "metric=-5%", "--metric", "score.py:hits", "--calibrate", "data.npz"]
    ended = run(capsys, *command)
    assert ended.code == 0, ended.err
    assert any(
        line.startswith("hits ") and "the original 0.9" in line for line in ended.out.split("\n")
    )
    record = json.loads(run(capsys, *command, "--json").out)
    figure = accuracy({"y": outputs(workplace / "s.onnx", data["x"])}, data)
    assert record["figure"] == record["chosen"]["figure"] == pytest.approx(figure)
    assert record["budget"] == "metric=-5%"
    figures, sizes = ([point[name] for point in record["front"]] for name in ("figure", "bytes"))
    assert figures == sorted(set(figures))
    assert sizes == sorted(set(sizes))
    quantization = rnnx.load_contract(workplace / "s.onnx").quantization
    assert quantization is not None
    assert (quantization["metric"], quantization["figure"]) == ("hits", record["figure"])


def test_a_metric_is_measured_at_every_level(model: Path, data: Arrays) -> None:
    small = model.with_name("small.onnx")
    report = rnnx.quantize(model, small, level="int4-store", calibration=data, metric=accuracy)
    assert report.metric == "accuracy"
    assert report.figure == pytest.approx(accuracy({"y": outputs(small, data["x"])}, data))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_metric_sees_every_sequence_once_however_many_advance_together(
    model: Path, data: Arrays, batch: int
) -> None:
    seen: list[Arrays] = []

    def noting(found: Arrays, inputs: Arrays) -> float:
        seen.append(found)
        assert inputs["classes"].shape == (3, 60)
        return 0.0

    rnnx.quantize(
        model,
        model.with_name("s.onnx"),
        level="int8-store",
        calibration=data,
        metric=noting,
        batch=batch,
        chunk=7,
    )
    np.testing.assert_allclose(seen[0]["y"], outputs(model, data["x"]), atol=1e-6)  # the original


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": "metric=-1%"}, "of a metric, and none is given"),
        ({"budget": "metric=-1%", "metric": accuracy, "calibration": None}, "no sequences to be"),
        ({"budget": "metric=1%", "metric": accuracy}, "is no budget"),
        ({"budget": "metric=-1", "metric": accuracy}, "is no budget"),
        ({"budget": "metric=-1KB", "metric": accuracy}, "is no budget"),
        ({"budget": "metric=%", "metric": accuracy}, "is no budget"),
        ({"level": "int8", "budget": "metric=-1%", "metric": accuracy}, "come together"),
    ],
)
def test_what_does_not_go_together_is_refused(
    model: Path, data: Arrays, options: dict[str, Any], reason: str
) -> None:
    given: dict[str, Any] = {"level": "auto", "calibration": data} | options
    if "metric" not in options:
        given["calibration"] = data["x"]
    with pytest.raises(rnnx.InputError, match=reason) as refused:
        rnnx.quantize(model, model.with_name("s.onnx"), **given)
    assert refused.value.hint
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def within_a_percent(model: Path, data: Arrays, metric: Any) -> None:
    small, budget = model.with_name("s.onnx"), "metric=-1%"
    rnnx.quantize(model, small, level="auto", budget=budget, calibration=data, metric=metric)


def test_a_metric_that_is_better_the_other_way_round_is_refused(model: Path, data: Arrays) -> None:
    def loss(found: Arrays, inputs: Arrays) -> float:
        return error_rate(found, inputs)

    loss.lower_is_better = True  # type: ignore[attr-defined]
    with pytest.raises(rnnx.InputError, match="a lower figure is better") as refused:
        within_a_percent(model, data, loss)
    assert refused.value.hint == "Write metric=+1%."


def test_a_metric_without_a_figure_for_the_original_is_refused(model: Path, data: Arrays) -> None:
    with pytest.raises(rnnx.InputError, match="NaN or infinity for the original"):
        within_a_percent(model, data, lambda found, inputs: math.nan)


def test_a_metric_without_a_figure_for_the_smaller_ones_keeps_nothing(
    model: Path, data: Arrays
) -> None:
    expected = outputs(model, data["x"])

    def picky(found: Arrays, inputs: Arrays) -> float:
        return 1.0 if np.allclose(found["y"], expected, atol=1e-6) else math.nan

    with pytest.raises(rnnx.QuantizationError, match="nothing tells how near the budget"):
        within_a_percent(model, data, picky)


def test_a_network_too_small_for_mixtures_gets_the_level_that_keeps_the_budget(
    tmp_path: Path,
) -> None:
    offline_artifact(tmp_path / "m.onnx", features=8, hidden_size=10)
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level="auto", budget="snr=45")
    assert report.chosen is not None
    assert report.chosen.name in LEVELS
    offline_artifact(tmp_path / "m.onnx", features=1, hidden_size=2)
    with pytest.raises(rnnx.QuantizationError, match="would change nothing"):
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level="auto", budget="snr=45")


@pytest.mark.parametrize("margin", [24, pytest.param(40, marks=pytest.mark.full)])
def test_the_file_itself_keeps_a_size_that_leaves_no_room(
    model: Path, data: Arrays, margin: int
) -> None:
    """What the contract tells counts too; for what it tells of the budget, 24 bytes are kept."""
    small = model.with_name("small.onnx")
    exact = rnnx.quantize(model, small, level="auto", budget="snr=30", calibration=data["x"])
    size = exact.output_bytes + margin
    report = rnnx.quantize(
        model, small, level="auto", budget=f"size={size}B", calibration=data["x"]
    )
    assert small.stat().st_size == report.output_bytes <= size


def test_every_point_of_the_front_and_every_level_is_timed(model: Path, data: Arrays) -> None:
    small = model.with_name("small.onnx")
    report = rnnx.quantize(model, small, level="auto", budget="snr=30", calibration=data["x"])
    assert {point.name for point in report.levels} == set(LEVELS)
    assert all((p.step_time_ratio or 0) > 0 for p in (*report.front, *report.levels))
    assert report.chosen in report.front
    assert report.chosen is not None
    assert report.chosen.bytes == small.stat().st_size
    assert report.chosen.step_time_ratio == report.step_time_ratio


@pytest.mark.parametrize("level", ["int8", "int8-block", "int4"])
@pytest.mark.parametrize("operator", ["GRU", "LSTM", "RNN"])
def test_what_is_advised_where_a_step_is_slower_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str, level: str
) -> None:
    monkeypatch.setattr(original, "measure_step_time", lambda *_: 2.0)
    src, dst, other = (tmp_path / f"{name}.onnx" for name in ("m", "s", "o"))
    offline_artifact(src, operator, features=64, hidden_size=300)
    report = rnnx.quantize(src, dst, level=level)
    (advice,) = (note for note in report.notes if note.startswith("A step is slower than before"))
    advised = advice.split(": ")[1].split(" ")[0]
    assert rnnx.quantize(src, other, level=advised).output_bytes <= 1.05 * report.output_bytes
    assert operator in rnnx.load_contract(other).operators  # in float32
    assert operator not in rnnx.load_contract(dst).operators


numbers = st.floats(-1e6, 1e6).filter(lambda number: abs(number) > 1e-3)


@given(reference=numbers, figure=numbers, percent=st.integers(-300, 300))
def test_a_metric_is_kept_as_the_gate_of_check_keeps_it(
    reference: float, figure: float, percent: int
) -> None:
    def function(found: Arrays, inputs: Arrays) -> float:
        return 0.0

    function.lower_is_better = percent >= 0  # type: ignore[attr-defined]
    budget = Budget.parse(f"metric={percent:+d}%").from_reference(reference)
    limit = budget.limit
    if not math.isclose(figure, limit, rel_tol=1e-9, abs_tol=1e-9):
        passes = Metric(function, drop=f"{abs(percent)}%").passes(figure, reference)
        assert budget.is_met(Point("int8", 1, None, {}, figure)) == passes


@given(
    st.one_of(
        st.integers(1, 1 << 40).map(lambda n: f"size={n}B"),
        st.integers(0, 140).map(lambda n: f"snr={n}"),
        st.sampled_from(["metric=-0%", "metric=+0%", "metric=-0.5%", "metric=+12.25%"]),
    )
)
def test_a_budget_reads_what_it_says_of_itself(text: str) -> None:
    budget = Budget.parse(text)
    again = Budget.parse(str(budget))
    assert again == budget
    assert again.lower_is_better == budget.lower_is_better
