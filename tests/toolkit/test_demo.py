"""The demo end to end: its figures are held against figures computed without it."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import matplotlib.image
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
import torch

from rnnx.cli import main
from rnnx.cli.demo import _OTHERS
from rnnx.recipes import NAMES, find, pipeline
from rnnx.recipes.forecast import Forecaster, load, train
from rnnx.recipes.packages import PACKAGES
from rnnx.recipes.pipeline import Result, Row
from rnnx.recipes.recipe import Recipe

FORMS = {
    "torch": "forecast.pt",
    "ONNX": "forecast-offline.onnx",
    "streamed": "forecast.onnx",
    "int8-store": "forecast-int8-store.onnx",
    "int8": "forecast-int8.onnx",
}
FILES = {*FORMS.values(), "heldout.csv", "forecast.png"}
DATA = load()
TRUTH = DATA.test.temperatures[25:]  # one day is read before forecasts count

Demo = tuple[Path, Result, list[str]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "made" / "here"
    torch.set_num_threads(1)  # as the command does
    messages: list[str] = []
    quick = dataclasses.replace(find("forecast"), train=partial(train, epochs=2))
    return folder, pipeline.run(quick, folder, tell=messages.append), messages


def _row(demo: Demo, name: str) -> Row:
    return demo[1].row(name)


def _inputs(folder: Path) -> npt.NDArray[np.float32]:
    return np.loadtxt(folder / "heldout.csv", delimiter=",", skiprows=1, dtype=np.float32)


def _whole_run(folder: Path, name: str) -> npt.NDArray[np.float64]:
    """The artifact as any runtime would run it: the whole sequence at once, from zero states."""
    session = ort.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    states = [node for node in session.get_inputs() if node.name != "x"]
    sizes = {"batch": 1, "s000_time": 24}  # the convolution has seen a day on which nothing changed
    shapes = {node.name: [sizes.get(n, n) for n in node.shape] for node in states}
    feeds = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    y = session.run(["y"], {"x": _inputs(folder)[None], **feeds})[0]
    return np.asarray(y, np.float64)[0, :, 0]


def _torch_run(folder: Path) -> npt.NDArray[np.float64]:
    model = Forecaster()
    model.load_state_dict(torch.load(folder / "forecast.pt", weights_only=True))
    with torch.no_grad():
        return model(torch.from_numpy(_inputs(folder)[None]))[0, :, 0].double().numpy()


def _rmse(forecasts: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((forecasts[-len(TRUTH) :] - TRUTH) ** 2)))


def test_it_writes_what_it_names_and_nothing_else(demo: Demo) -> None:
    folder, result, _ = demo
    assert {path.name for path in folder.iterdir()} == FILES
    assert {row.name: row.file for row in result.rows if row.file} == {
        name: str(folder / file) for name, file in FORMS.items()
    }
    assert set(result.notes.values()) == {str(folder / "heldout.csv"), str(folder / "forecast.png")}
    for name, file in FORMS.items():
        assert _row(demo, name).bytes == (folder / file).stat().st_size


def test_heldout_inputs_are_the_test_parts_hours(demo: Demo) -> None:
    folder = demo[0]
    header = (folder / "heldout.csv").read_text().splitlines()[0]
    assert header == "temperature,change,hour_sin,hour_cos,day_sin,day_cos"
    np.testing.assert_allclose(_inputs(folder)[:, 0], DATA.test.temperatures[:-1], rtol=1e-6)


def test_scores_are_those_of_the_whole_run(demo: Demo) -> None:
    folder = demo[0]
    reference = _torch_run(folder)
    assert _row(demo, "torch").score == pytest.approx(_rmse(reference), rel=1e-5)
    assert _row(demo, "torch").max_error == 0
    for name, file in list(FORMS.items())[1:]:
        whole, row = _whole_run(folder, file), _row(demo, name)
        assert row.score == pytest.approx(_rmse(whole), rel=1e-4)
        assert row.max_error == pytest.approx(np.abs(whole - reference).max(), abs=1e-5)


def test_the_artifacts_equal_torch_and_int8_is_smaller(demo: Demo) -> None:
    assert demo[1].passed
    for name in ("ONNX", "streamed"):
        assert (_row(demo, name).max_error or 0) < 1e-5
    assert 1e-5 < (_row(demo, "int8").max_error or 0) < 0.01
    sizes = [_row(demo, name).bytes or 0 for name in ("streamed", "int8")]
    assert sizes[1] < sizes[0] / 2


def test_even_two_epochs_beat_every_baseline(demo: Demo) -> None:
    persistence = _row(demo, "persistence")
    assert persistence.score == pytest.approx(_rmse(DATA.test.temperatures[24:-1]))
    assert (
        persistence.file
        is persistence.bytes
        is persistence.max_error
        is persistence.step_us
        is None
    )
    baselines = [row.score for row in demo[1].rows if row.file is None]
    assert len(baselines) == 3
    assert _row(demo, "int8").score < min(baselines)


def test_the_picture_shows_truth_forecast_and_baseline(demo: Demo) -> None:
    pixels = matplotlib.image.imread(demo[0] / "forecast.png")[..., :3]
    assert pixels.shape == (720, 1080, 3)
    for color in ((0.6, 0.6, 0.6), (31 / 255, 119 / 255, 180 / 255), (1, 127 / 255, 14 / 255)):
        found = np.abs(pixels - np.array(color)).max(axis=-1) < 0.02
        assert found.sum() > 500
    margins = np.concatenate([pixels[:, :3], pixels[:, -3:]], axis=1)
    assert (margins == 1).all()  # nothing is cut off at the sides


def test_progress_names_each_epoch(demo: Demo) -> None:
    for epoch in ("epoch 1 of 2", "epoch 2 of 2"):
        assert sum(epoch in message for message in demo[2]) == 1


@pytest.fixture
def canned(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Result:
    """The command without the minute: it gets the result made above."""
    monkeypatch.setattr(pipeline, "run", lambda recipe, folder, **options: demo[1])
    return demo[1]


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    return int(ended.value.code or 0)


def test_the_table_has_a_row_for_each_form(
    canned: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("forecast") == 0
    printed = capsys.readouterr()
    table = printed.out.split("\n\n")[0].splitlines()[2:]
    assert [line.split("  ")[0] for line in table] == [row.name for row in canned.rows]
    assert all(
        line.endswith(f"{row.score:.3f} °F") for line, row in zip(table, canned.rows, strict=True)
    )
    assert all(f"{name}: {note}" in printed.out for name, note in canned.notes.items())
    assert "the artifacts equal torch" in printed.err
    assert "rnnx bench" in printed.err


def test_options_reach_the_pipeline(canned: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run(recipe: Recipe, folder: str, **options: object) -> Result:
        asked.update(options, recipe=recipe.name, folder=folder)
        return canned

    monkeypatch.setattr(pipeline, "run", run)
    assert _run("charlm", "--cell", "rnn", "--full", "--seed", "7", "-o", "here") == 0
    del asked["tell"]
    assert asked == {"recipe": "charlm", "folder": "here", "cell": "rnn", "full": True, "seed": 7}


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_bears_its_name_and_known_packages(name: str) -> None:
    recipe = find(name)
    assert recipe.name == name
    for package in recipe.packages:  # two recipes may share one; fetching for either brings it
        assert package in find(PACKAGES[package].recipe).packages


def test_each_package_is_fetched_for_the_recipe_that_it_names() -> None:
    assert all(name in find(package.recipe).packages for name, package in PACKAGES.items())


def test_json_holds_the_numbers(canned: Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["rows"] == [dataclasses.asdict(row) for row in canned.rows]
    assert record["passed"] is True


def test_an_artifact_that_differs_ends_with_one(
    canned: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    differing = dataclasses.replace(canned, passed=False)
    monkeypatch.setattr(pipeline, "run", lambda recipe, folder, **options: differing)
    assert _run() == 1
    assert "DO NOT EQUAL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stream", ["-o", "here"]),
        ("stream", ["--seed", "0"]),
        ("write", ["--cell", "rnn"]),
        ("gradients", ["--cell", "rnn"]),
        ("state", ["--full"]),
        ("state", ["--seed", "0"]),
        ("gates", ["--fetch"]),
        ("attention", ["--full", "--cell", "lstm"]),
    ],
)
def test_an_option_without_use_is_misuse(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, options: list[str]
) -> None:
    assert _run(name, *options) == 2
    printed = capsys.readouterr()
    assert f"rnnx demo {name} has no use for" in printed.err
    named = [option.replace("-o", "--output-dir") for option in options if option[0] == "-"]
    assert set(re.findall("--[a-z-]+", printed.err.splitlines()[-1])) == set(named)
    assert printed.out == ""
    assert not list(workplace.iterdir())


def test_options_with_a_use_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("write", "--seed", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["text"]


def test_help_is_short_and_names_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--help") == 0
    usage, text = capsys.readouterr().out.split("\n\n", 1)
    assert usage == "Usage: rnnx demo [OPTIONS] [NAME]"
    assert set(re.findall("[a-z_]+", text)) >= {*NAMES, *_OTHERS}


def test_an_unknown_recipe_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("weather") == 2
    assert "'weather' is not one of 'forecast', " in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_misuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert _run("-o", str(tmp_path / "taken")) == 2
    assert "taken" in capsys.readouterr().err
