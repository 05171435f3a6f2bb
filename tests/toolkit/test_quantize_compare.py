"""All levels side by side: every figure against a plain run of the file that the level writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

import rnnx
from quantizable import offline_artifact, streaming_lstm
from rnnx import starting
from rnnx.cli import main
from rnnx.quantization import comparison, one_file, quality, tuning
from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.comparison import Compared, compare_levels
from rnnx.quantization.levels import LEVELS, int8, int8_store
from rnnx_runtime import ArtifactError, InputError

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)
    monkeypatch.setattr(starting, "_PROCESSES", 1)


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the levels that there are."""

    def only(**levels: Any) -> None:
        for module in (comparison, one_file):
            monkeypatch.setattr(module, "LEVELS", levels)

    return only


@pytest.fixture
def model(tmp_path: Path) -> Path:
    streaming_lstm(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def _heldout(frames: int, *, batch: int = 1) -> dict[str, Array]:
    x = np.random.default_rng(frames).normal(size=(batch, frames, 16)).astype(np.float32)
    return {"x": x, "classes": np.random.default_rng(1).integers(0, 32, (batch, frames))}


def _outputs(path: Path, run: dict[str, Array]) -> Array:
    """One frame after another, as an int8 file is deployed."""
    stream = rnnx.Stream(path, batch=len(run["x"]))
    frames = (run["x"][:, [t]] for t in range(run["x"].shape[1]))
    return np.concatenate([np.asarray(stream.feed(frame)) for frame in frames], axis=1)


def accuracy(outputs: dict[str, Array], inputs: dict[str, Array]) -> float:
    return float((outputs["y"].argmax(-1) == inputs["classes"]).mean())


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_every_figure_is_that_of_the_file_that_the_level_writes(model: Path) -> None:
    runs = [_heldout(40), _heldout(30, batch=2)]
    found = compare_levels(model, calibration=iter(runs), metric=accuracy)  # read only once
    wanted = [_outputs(model, run) for run in runs]
    scores = [accuracy({"y": y}, run) for y, run in zip(wanted, runs, strict=True)]
    assert found.figure == pytest.approx(np.mean(scores))
    assert [each.level for each in found.levels] == list(LEVELS)
    for each in found.levels:
        alone = model.with_name(f"{each.level}.onnx")
        report = rnnx.quantize(model, alone, level=each.level, calibration=runs, metric=accuracy)
        outputs = [_outputs(alone, run) for run in runs]
        pairs = zip(outputs, wanted, strict=True)
        same = np.concatenate([(y.argmax(-1) == w.argmax(-1)).ravel() for y, w in pairs])
        scores = [accuracy({"y": y}, run) for y, run in zip(outputs, runs, strict=True)]
        assert each.figure == report.figure == pytest.approx(np.mean(scores))
        assert each.agreement == pytest.approx(same.mean())
        assert each.report is not None
        assert each.report.output_bytes == report.output_bytes
        assert each.report.snr_db == pytest.approx(report.snr_db)


def test_nothing_is_written_and_random_inputs_do_without_data(
    model: Path, levels: Callable[..., None]
) -> None:
    levels(store=int8_store.apply)
    found = compare_levels(model)
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]
    assert found.figure is None
    assert all(each.figure is None for each in found.levels)
    assert all(each.report and each.report.measured_on == "random inputs" for each in found.levels)


def test_where_there_is_nothing_to_choose_from_nothing_agrees(
    tmp_path: Path, levels: Callable[..., None]
) -> None:
    levels(store=int8_store.apply)
    offline_artifact(tmp_path / "one.onnx", features=600, hidden_size=1)
    found = compare_levels(tmp_path / "one.onnx")
    assert all(each.report and each.agreement is None for each in found.levels)


# Faults that a level may have, each of which must show in its own figure.


def _turned(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Turn round the last axis of y: as loud as before, but every class is another."""
    change = int8_store.apply(model)
    y = next(value for value in model.graph.outputs if value.name == "y")
    node, y.name = y.producer(), "y.right"
    assert node is not None
    ends = [np.array([end], np.int64) for end in (-1, -33, 2, -1)]
    inits = [ir.Value(name=f"turn{i}", const_value=ir.tensor(end)) for i, end in enumerate(ends)]
    for value in inits:
        model.graph.register_initializer(value)
    turned = ir.node("Slice", [y, *inits])
    turned.outputs[0].name, turned.outputs[0].type = "y", y.type
    turned.outputs[0].shape = y.shape
    model.graph.append(turned)
    model.graph.outputs[model.graph.outputs.index(y)] = turned.outputs[0]
    return change


def test_a_level_that_mixes_the_classes_shows(model: Path, levels: Callable[..., None]) -> None:
    levels(right=int8_store.apply, turned=_turned)
    right, turned = compare_levels(model, calibration=_heldout(50), metric=accuracy).levels
    assert right.agreement is not None
    assert right.agreement > 0.9
    assert turned.agreement is not None
    assert turned.agreement < 0.1


def _with_ballast(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Multiply by the least of 4 million ones: 16 MB that the file holds more."""
    change = int8_store.apply(model)
    scale = ir.Value(name="ballast", const_value=ir.tensor(np.ones((1 << 22,), np.float32)))
    model.graph.register_initializer(scale)
    y = model.graph.outputs[0]
    added = ir.node("ReduceMin", [scale], {"keepdims": 0})
    node = ir.node("Mul", [y, added.outputs[0]])
    y.name, node.outputs[0].name = "y.before", "y"
    node.outputs[0].type, node.outputs[0].shape = y.type, y.shape
    model.graph.extend([added, node])
    model.graph.outputs[0] = node.outputs[0]
    return change


def test_a_level_that_takes_memory_shows(model: Path, levels: Callable[..., None]) -> None:
    levels(right=int8_store.apply, heavy=_with_ballast)
    found = compare_levels(model)
    right, heavy = (each.memory for each in found.levels)
    assert right is not None
    assert heavy is not None
    assert heavy > right + (8 << 20)


def test_a_level_that_is_refused_is_told_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offline_artifact(tmp_path / "tiny.onnx", features=1, hidden_size=2)
    assert _run("quantize", tmp_path / "tiny.onnx", "--compare") == 0
    printed = capsys.readouterr()
    rows = [row for row in printed.out.splitlines() if row.endswith("refused")]
    assert len(rows) == len(LEVELS)
    assert printed.err.count("would change nothing") == len(LEVELS)


METRICS = """
def accuracy(outputs, inputs):
    return float((outputs["y"].argmax(-1) == inputs["classes"]).mean())

def misnamed(outputs, inputs):
    return outputs["logits"].mean()

def textual(outputs, inputs):
    return "good"
"""


@pytest.fixture
def data(model: Path, workplace: Path) -> Path:
    (workplace / "score.py").write_text(METRICS)
    np.savez(workplace / "heldout.npz", **_heldout(25))
    return workplace / "heldout.npz"


def test_the_table_and_the_json_tell_the_same(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str], levels: Callable[..., None]
) -> None:
    levels(**{"int8-store": int8_store.apply})
    arguments = ["quantize", model, "--compare", "--calibrate", data]
    assert _run(*arguments, "--metric", "score.py:accuracy") == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith("top-1 agreement   memory  score.py:accuracy")
    assert _run(*arguments, "--metric", "score.py:accuracy", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["metric"] == "score.py:accuracy"
    told = [record["figure"], *(each["figure"] for each in record["levels"])]
    assert [float(row.split()[-1]) for row in rows] == pytest.approx(told, rel=1e-5)
    assert record["levels"][0].keys() == set(Compared.__dataclass_fields__)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("misnamed", "the metric 'misnamed' raised KeyError: 'logits'"),
        ("textual", "could not convert string to float"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_metric_that_gives_no_figure_is_refused(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str], metric: str, message: str
) -> None:
    arguments = ["quantize", model, "--compare", "--calibrate", data]
    assert _run(*arguments, "--metric", f"score.py:{metric}") == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_a_metric_without_data_and_labels_without_a_metric_are_refused(model: Path) -> None:
    with pytest.raises(InputError, match="no sequences to be measured on"):
        compare_levels(model, metric=accuracy)
    with pytest.raises(InputError, match="classes"):
        compare_levels(model, calibration=_heldout(9))


@pytest.mark.parametrize("batch", [1, 3])
def test_it_compares_as_it_is_deployed(
    model: Path, levels: Callable[..., None], batch: int
) -> None:
    levels(**{"int8": int8.apply})
    run = _heldout(48, batch=3)
    found = compare_levels(model, calibration=run, chunk=6, batch=batch, metric=accuracy)
    (each,) = found.levels
    assert each.report is not None
    assert (each.report.chunk, each.report.batch) == (6, batch)
    alone = model.with_name("alone.onnx")
    rnnx.quantize(model, alone, calibration={"x": run["x"]}, chunk=6, batch=batch)
    outputs = [_in_chunks(alone, run["x"][i : i + batch]) for i in range(0, 3, batch)]
    wanted = accuracy({"y": np.concatenate(outputs)}, run)
    assert each.figure == pytest.approx(wanted)


def _in_chunks(path: Path, x: Array) -> Array:
    stream = rnnx.Stream(path, batch=len(x))
    return np.concatenate([np.asarray(stream.feed(x[:, t : t + 6])) for t in range(0, 48, 6)], 1)


def test_levels_that_compute_are_tuned_and_the_others_are_not(
    model: Path, levels: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    levels(**{"int8-store": int8_store.apply, "int8": int8.apply})
    assert _run("quantize", model, "--compare", "--tune", "--json") == 0
    store, computing = json.loads(capsys.readouterr().out)["levels"]
    assert not any("timed here" in note for note in store["report"]["notes"])
    assert any("timed here" in note for note in computing["report"]["notes"])


def test_onnx_from_elsewhere_is_compared_without_its_memory(
    tmp_path: Path, levels: Callable[..., None]
) -> None:
    levels(**{"int8-store": int8_store.apply})
    offline_artifact(tmp_path / "m.onnx")
    plain = onnx.load(tmp_path / "m.onnx")
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "m.onnx")
    found = compare_levels(tmp_path / "m.onnx")
    report = rnnx.quantize(tmp_path / "m.onnx", tmp_path / "s.onnx", level="int8-store")
    (each,) = found.levels
    assert each.report is not None
    assert each.report.snr_db == report.snr_db
    assert (found.memory, each.memory) == (None, None)


def test_a_folder_without_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no encoder-decoder"):
        compare_levels(tmp_path)
