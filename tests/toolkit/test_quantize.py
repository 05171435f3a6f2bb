"""`rnnx.quantize`: what it writes, what it measures, and what it refuses to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import rnnx
from artifacts import gru_artifact
from quantizable import (
    GATES,
    offline_artifact,
    recurrent_weights,
    save_graph,
    streaming_lstm,
)
from rnnx.quantization import invariance, quality
from rnnx.quantization.change import Change, Given
from rnnx.quantization.levels import LEVELS

pytestmark = pytest.mark.usefixtures("short_timing")

Array = npt.NDArray[Any]

FLOOR_DB = {"fp16-store": 60, "int8-store": 35, "int8": 30, "int8-block": 30, "int4": 15}


@pytest.mark.parametrize("level", FLOOR_DB)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("operator", GATES)
def test_offline_nets_keep_their_outputs(
    tmp_path: Path, operator: str, layers: int, directions: int, level: str
) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    before = offline_artifact(src, operator, layers=layers, directions=directions)
    report = rnnx.quantize(src, dst, level=level)
    assert report.changed == {operator: layers}
    assert report.worst_snr_db is not None
    assert report.worst_snr_db > FLOOR_DB[level]
    assert report.output_bytes == dst.stat().st_size < src.stat().st_size == report.source_bytes
    after = rnnx.load_contract(dst)
    assert (after.inputs, after.outputs, after.states) == (before.inputs, before.outputs, ())


@pytest.mark.parametrize("level", FLOOR_DB)
def test_the_snr_is_that_of_a_run_in_plain_onnxruntime(tmp_path: Path, level: str) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    offline_artifact(src, "LSTM", layers=2, directions=2)
    rng = np.random.default_rng(5)
    runs = [rng.normal(size=(frames, 3, 16)).astype(np.float32) for frames in (1, 12, 50)]
    report = rnnx.quantize(src, dst, level=level, calibration=runs)
    expected = np.concatenate([_run(src, {"x": run})["y"].ravel() for run in runs])
    found = np.concatenate([_run(dst, {"x": run})["y"].ravel() for run in runs])
    assert report.snr_db == {"y": pytest.approx(_snr_db(expected, found), abs=0.01)}
    assert report.measured_on == "calibration data"


@pytest.mark.parametrize("level", FLOOR_DB)
def test_a_streaming_artifact_is_measured_frame_after_frame_states_too(
    tmp_path: Path, level: str
) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    before = streaming_lstm(src)
    x = np.random.default_rng(1).normal(size=(2, 30, 16)).astype(np.float32)
    report = rnnx.quantize(src, dst, level=level, calibration={"x": x})
    expected, found = _stepwise(src, before, x), _stepwise(dst, before, x)
    assert report.snr_db == {
        name: pytest.approx(_snr_db(expected[name], found[name]), abs=0.01) for name in expected
    }
    assert report.worst_snr_db == min(report.snr_db.values()) > FLOOR_DB[level]
    after = rnnx.load_contract(dst)
    assert (after.inputs, after.outputs, after.states) == (
        before.inputs,
        before.outputs,
        before.states,
    )
    np.testing.assert_array_equal(after.states[0].initial, before.states[0].initial)
    assert rnnx.Stream(dst).feed(x[:1, :4]).shape == (1, 4, 32)


def test_layers_that_share_weights_still_do(tmp_path: Path) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    offline_artifact(src, layers=2, features=32, hidden_size=32, shared=True)
    report = rnnx.quantize(src, dst)
    assert report.changed == {"LSTM": 2}
    assert report.worst_snr_db is not None
    assert report.worst_snr_db > FLOOR_DB["int8"]
    assert report.output_bytes < 0.4 * report.source_bytes


def test_the_contract_tells_how_it_was_quantized(tmp_path: Path) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    before = offline_artifact(src, "LSTM")
    report = rnnx.quantize(src, dst)
    after = rnnx.load_contract(dst)
    assert after.quantization == {
        "level": "int8",
        "changed": {"LSTM": 1},
        "measured_on": "random inputs",
        "chunk": None,
        "batch": 2,
        "snr_db": report.snr_db,
        "agreement": report.agreement,
        "invariance": report.invariance,
    }
    assert after.operators["DynamicQuantizeLSTM"] == 1
    assert after.fingerprint not in ("", before.fingerprint)
    assert before.checked
    assert after.checked is None  # it was measured on another graph


def test_the_report_as_json_holds_all_of_it(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx", "GRU")
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx", level="int8-store")
    record = json.loads(report.to_json())
    assert record["ratio"] == report.source_bytes / report.output_bytes
    assert record["worst_snr_db"] == report.worst_snr_db == min(record["snr_db"].values())
    assert record["changed"] == {"GRU": 1}
    assert record["step_time_ratio"] == report.step_time_ratio > 0
    assert record["notes"] == list(report.notes)


def test_the_original_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    offline_artifact(path)
    before = path.read_bytes()
    with pytest.raises(rnnx.InputError, match="would overwrite"):
        rnnx.quantize(path, tmp_path / ".." / tmp_path.name / "m.onnx")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_stays_a_function_once_its_package_is_imported(tmp_path: Path) -> None:
    import rnnx.quantization.quantizer

    assert rnnx.quantize is rnnx.quantization.quantizer.quantize


# What the measurement must see: faults that a wrong level would plant.


def _swap_gate_scales(model: ir.Model) -> None:
    scale = _stored(model, "W0/scale")
    gates = scale.reshape(scale.shape[0], 4, -1)
    gates[:, [0, 2]] = gates[:, [2, 0]]


def _transpose_recurrent_weight(model: ir.Model) -> None:
    gates = _stored(model, "R0/int8").reshape(4, 32, 32)
    gates[:] = gates.transpose(0, 2, 1).copy()


def _lose_a_sign(model: ir.Model) -> None:
    codes = _stored(model, "W0/int8")
    codes[:, :8] = np.abs(codes[:, :8])


@pytest.mark.parametrize("fault", [_swap_gate_scales, _transpose_recurrent_weight, _lose_a_sign])
def test_the_snr_shows_a_planted_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[ir.Model], None]
) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    _uneven_lstm(src)
    x = np.random.default_rng(0).normal(size=(64, 2, 16)).astype(np.float32)
    sound = rnnx.quantize(src, dst, level="int8-store", calibration=x).worst_snr_db
    _plant(monkeypatch, fault)
    faulty = rnnx.quantize(src, dst, level="int8-store", calibration=x).worst_snr_db
    assert sound is not None
    assert faulty is not None
    assert sound > FLOOR_DB["int8-store"]
    assert faulty < 20


def _nan_scale(model: ir.Model) -> None:
    _stored(model, "R0/scale")[:] = np.nan


def test_nan_where_there_was_a_number_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _uneven_lstm(tmp_path / "m.onnx")
    (tmp_path / "small.onnx").write_text("what was here before")
    _plant(monkeypatch, _nan_scale)
    with pytest.raises(rnnx.QuantizationError, match="quantized 'Y' is NaN or infinite") as failure:
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx", level="int8-store")
    assert failure.value.hint
    assert (tmp_path / "small.onnx").read_text() == "what was here before"
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "small.onnx"}


def test_nan_that_the_original_gives_too_is_left_out(tmp_path: Path) -> None:
    """The square root of a negative number is NaN in both; the rest of the output counts."""
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sqrt", ["z"], ["y"])]
    save_graph(tmp_path / "m.onnx", nodes, {"w": weight}, {"x": ("b", 32)}, {"y": ("b", 32)})
    x = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    x *= np.abs(x @ weight).min(1, keepdims=True) > 0.3  # no sign flips by rounding
    report = rnnx.quantize(
        tmp_path / "m.onnx", tmp_path / "s.onnx", level="fp16-store", calibration=x
    )
    assert 60 < report.snr_db["y"] < 138


def test_integer_outputs_are_compared_by_value(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(32, 40)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
    ]
    save_graph(tmp_path / "m.onnx", nodes, {"w": weight}, {"x": ("b", 32)}, {"label": ("b",)})
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, tmp_path / "m.onnx")
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level="fp16-store")
    assert report.snr_db == {}
    assert report.worst_snr_db is None
    assert "'label' holds no floats; 100.0 % of its values are as before." in report.notes


def test_an_output_that_is_zero_is_not_called_perfect(tmp_path: Path) -> None:
    weight = -np.random.default_rng(0).uniform(1, 2, (32, 40)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    save_graph(tmp_path / "m.onnx", nodes, {"w": weight}, {"x": ("b", 32)}, {"y": ("b", 40)})
    x = np.random.default_rng(1).uniform(1, 2, (3, 32)).astype(np.float32)
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", calibration=x)
    assert report.snr_db == {}
    assert "'y' is 0 throughout on these inputs, so nothing was measured of it." in report.notes


# What a level promises of chunks and neighbours is proven before anything is written.


def _promising(monkeypatch: pytest.MonkeyPatch, level: str, promise: str) -> None:
    """Let a level promise so much; it computes as before."""
    sound = LEVELS[level]

    def planted(model: ir.Model, given: Given) -> Change:
        change = sound(model, given)
        change.invariance = promise
        return change

    monkeypatch.setitem(LEVELS, level, planted)


@pytest.mark.parametrize("promise", ["chunks", "all"])
def test_a_level_that_promises_too_much_of_chunks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promise: str
) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    assert rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx").invariance == "none"
    (tmp_path / "s.onnx").unlink()
    _promising(monkeypatch, "int8", promise)
    with pytest.raises(rnnx.QuantizationError, match="how a stream is cut changes 'y'") as failure:
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx")
    assert failure.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_level_that_promises_too_much_of_neighbours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    """Rows scaled over the sequences of a call: cutting changes no bit, a loud neighbour does."""
    if streaming:
        gru_artifact(tmp_path / "m.onnx", features=16, hidden_size=256)
    else:
        offline_artifact(tmp_path / "m.onnx", "GRU", hidden_size=256)
    assert rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx").invariance == "chunks"
    (tmp_path / "s.onnx").unlink()
    _promising(monkeypatch, "int8", "all")
    with pytest.raises(rnnx.QuantizationError, match="another sequence of the batch changes"):
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("level", "promised"),
    [("fp16-store", "all"), ("int8-store", "all"), ("int8-block", "all"), ("int4", "chunks")],
)
def test_what_is_promised_is_held(tmp_path: Path, level: str, promised: str) -> None:
    gru_artifact(tmp_path / "m.onnx", features=16, hidden_size=300)
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level=level)
    assert report.invariance == promised


def test_rounding_of_float32_itself_is_told_not_refused(tmp_path: Path) -> None:
    """Held against itself, an original whose bits depend on chunks breaks no promise."""
    contract = streaming_lstm(tmp_path / "m.onnx")
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx")
    runner = quality.open_runner(tmp_path / "s.onnx", contract)
    x = np.random.default_rng(0).normal(size=(1, 30, 16)).astype(np.float32)
    held, notes = invariance.prove_invariance(runner, runner, contract, [{"x": x}], "all", 1)
    assert held == "none"
    assert notes == ["The rounding of 'y' depends on how a stream is cut, as in float32."]


# What is deployed: how many frames at a time, of how many sequences.


def test_it_is_measured_as_it_is_deployed(tmp_path: Path) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    streaming_lstm(src)
    x = np.random.default_rng(1).normal(size=(3, 30, 16)).astype(np.float32)
    report = rnnx.quantize(src, dst, calibration=x, chunk=10, batch=2)
    pairs = []
    for rows in (x[[0, 1]], x[[2, 0]]):  # two at a time, the first once more
        streams = [rnnx.Stream(path, batch=2) for path in (src, dst)]
        pairs += [[s.feed(rows[:, i : i + 10]) for s in streams] for i in (0, 10, 20)]
    expected, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert report.snr_db["y"] == pytest.approx(_snr_db(expected, found), abs=0.01)
    agreed = (expected.argmax(-1) == found.argmax(-1)).mean()
    assert report.agreement == pytest.approx(agreed)
    assert (report.chunk, report.batch) == (10, 2)
    assert report.snr_db["y"] != rnnx.quantize(src, dst, calibration=x, chunk=1).snr_db["y"]


def test_chunks_and_batches_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    offline_artifact(tmp_path / "whole.onnx")
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("m.onnx", {"chunk": 0}, "a call of 0 frames"),
        ("m.onnx", {"batch": 0}, "cannot run 0 sequences"),
        ("whole.onnx", {"chunk": 1}, "whole sequences, no chunks"),
    ]
    for name, options, message in refused:
        with pytest.raises(rnnx.InputError, match=message) as failure:
            rnnx.quantize(tmp_path / name, tmp_path / "s.onnx", **options)
        assert failure.value.hint
    assert not (tmp_path / "s.onnx").exists()


# ONNX from elsewhere: without a contract.


def test_plain_onnx_is_quantized_and_stays_plain(tmp_path: Path) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    _plain_gru(src, ("frames", "n", 16))
    report = rnnx.quantize(src, dst, level="int8-store")
    assert report.changed == {"GRU": 1}
    assert report.snr_db["Y"] > 35
    assert not onnx.load(dst).metadata_props


def test_plain_onnx_of_many_free_axes_needs_calibration_data(tmp_path: Path) -> None:
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    _plain_gru(src, ("frames", "n", "features"))
    with pytest.raises(rnnx.ArtifactError, match="'features'"):
        rnnx.quantize(src, dst)
    assert not dst.exists()
    x = np.random.default_rng(0).normal(size=(5, 2, 16)).astype(np.float32)
    assert rnnx.quantize(src, dst, calibration=x).changed == {"GRU": 1}


# Refusals.


def test_what_cannot_change_is_an_error_that_says_why(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx", features=2, hidden_size=2)
    with pytest.raises(rnnx.QuantizationError, match=r"would change nothing.*small weights"):
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()


def test_a_graph_without_weights_is_an_error(tmp_path: Path) -> None:
    node = helper.make_node("Tanh", ["x"], ["y"])
    save_graph(tmp_path / "m.onnx", [node], {}, {"x": ("b", 2)}, {"y": ("b", 2)})
    with pytest.raises(rnnx.QuantizationError, match="no float32 weight"):
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx")


@pytest.mark.parametrize("level", FLOOR_DB)
def test_a_quantized_artifact_is_refused(tmp_path: Path, level: str) -> None:
    offline_artifact(tmp_path / "m.onnx")
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx", level=level)
    with pytest.raises(rnnx.QuantizationError, match=rf"quantized already \({level}\)") as failure:
        rnnx.quantize(tmp_path / "small.onnx", tmp_path / "again.onnx")
    assert "float32 artifact" in str(failure.value.hint)
    assert not (tmp_path / "again.onnx").exists()


def test_plain_onnx_that_is_quantized_is_refused(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx")
    rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(rnnx.QuantizationError, match=r"already \(DynamicQuantizeLSTM\)"):
        rnnx.quantize(tmp_path / "plain.onnx", tmp_path / "again.onnx")


def test_bad_files_and_levels_are_refused(tmp_path: Path) -> None:
    gru_artifact(tmp_path / "m.onnx", features=16, hidden_size=16)
    (tmp_path / "text.onnx").write_text("not onnx")
    with pytest.raises(rnnx.InputError, match="no level 'int3'") as failure:
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "small.onnx", level="int3")
    assert failure.value.hint == f"Choose one of {', '.join(LEVELS)}, auto."
    with pytest.raises(rnnx.ArtifactError, match="no file"):
        rnnx.quantize(tmp_path / "none.onnx", tmp_path / "small.onnx")
    with pytest.raises(rnnx.ArtifactError, match="not an ONNX file"):
        rnnx.quantize(tmp_path / "text.onnx", tmp_path / "small.onnx")
    with pytest.raises(rnnx.ArtifactError, match="no folder"):
        rnnx.quantize(tmp_path / "m.onnx", tmp_path / "nowhere" / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()


def test_weights_in_a_second_file_are_read_with_it(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.save(model, tmp_path / "two.onnx", save_as_external_data=True, location="two.bin")
    reports = [
        rnnx.quantize(tmp_path / name, tmp_path / f"small-{name}", level="int8-store")
        for name in ("m.onnx", "two.onnx")
    ]
    assert reports[0].changed == reports[1].changed
    assert reports[0].snr_db == reports[1].snr_db
    assert len((tmp_path / "small-two.onnx").read_bytes()) == reports[1].output_bytes


def _plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[ir.Model], None]) -> None:
    sound = LEVELS["int8-store"]

    def planted(model: ir.Model, given: Given) -> Change:
        change = sound(model, given)
        fault(model)
        return change

    monkeypatch.setitem(LEVELS, "int8-store", planted)


def _stored(model: ir.Model, name: str) -> Array:
    """The array of an initializer, to be written to."""
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    value.const_value = ir.tensor(array, name=name)
    return array


def _uneven_lstm(path: Path) -> None:
    """Gates of unlike magnitude, as training makes them; no bias, whose addition hides NaN."""
    weights = recurrent_weights("LSTM", 16, 32)
    gates = np.repeat(np.float32([1, 0.2, 3, 0.5]), 32)[None, :, None]
    weights = {"W0": weights["W"] * gates, "R0": weights["R"] * gates}
    node = helper.make_node("LSTM", ["x", "W0", "R0"], ["Y"], hidden_size=32)
    save_graph(path, [node], weights, {"x": ("t", "b", 16)}, {"Y": ("t", 1, "b", 32)})


def _plain_gru(path: Path, dims: tuple[int | str, ...]) -> None:
    weights = recurrent_weights("GRU", 16, 32)
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["Y"], hidden_size=32)
    save_graph(path, [node], weights, {"x": dims}, {"Y": (dims[0], 1, dims[1], 32)})


def _run(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    session = _open(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _stepwise(path: Path, contract: rnnx.Contract, x: Array) -> dict[str, Array]:
    """Outputs and states of a hand-written loop over frames."""
    session = _open(path)
    states = {f"{s.name}_in": s.start(batch=len(x)) for s in contract.states}
    steps: dict[str, list[Array]] = {"y": [], "s000": [], "s001": []}
    for frame in range(x.shape[1]):
        feeds = {"x": x[:, frame : frame + 1], **states}
        y, h, c = session.run(["y", "s000_out", "s001_out"], feeds)
        states = {"s000_in": h, "s001_in": c}
        for name, value in zip(steps, (y, h, c), strict=True):
            steps[name].append(value.ravel())
    return {name: np.concatenate(values) for name, values in steps.items()}


def _open(path: Path) -> ort.InferenceSession:
    """With one thread: the int8 LSTM's activation scales depend on how threads share the batch."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options)


def _snr_db(expected: Array, found: Array) -> float:
    signal = expected.astype(np.float64)
    return float(10 * np.log10(np.sum(signal**2) / np.sum((found - signal) ** 2)))
