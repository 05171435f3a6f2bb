"""An encoder-decoder's folder, quantized: both files, one contract, and it still decodes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from command_line import listing, run
from rnnx.quantization import pair
from rnnx.quantization.comparison import compare_levels
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.pair import read_sources, step_runs

pytestmark = pytest.mark.usefixtures("short_timing")

FILES = ("encoder", "step")


class _Translator(nn.Module):
    """A GRU over ids, and a cell that starts at its last state and sees the mean of the source."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(90, 32)
        self.encoder = nn.GRU(32, 48, batch_first=True)
        self.cell = nn.GRUCell(32 + 48, 48)
        self.head = nn.Linear(48, 90)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.encoder(self.table(src))
        inside = torch.arange(src.shape[1])[None] < lengths[:, None]
        mean = (y * inside[..., None]).sum(1) / lengths[:, None]
        return mean, mean.tanh()

    def step(self, token: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(torch.cat([self.table(token), memory], -1), state)
        return self.head(h), h


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("exported") / "model"
    example = torch.randint(0, 90, (2, 5)), torch.tensor([5, 3])
    rnnx.export_seq2seq(_Translator(), example, folder, start=0, end=1, max_length=8)
    return folder


@pytest.fixture
def src(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.mark.parametrize("level", ["fp16-store", "int8-store"])
def test_a_quantized_encoder_decoder_runs(src: Path, tmp_path: Path, level: str) -> None:
    report = rnnx.quantize(src, tmp_path / "small", level=level)
    encoder, step = (rnnx.load_contract(tmp_path / "small" / f"{n}.onnx") for n in FILES)
    assert {encoder.quantization["level"], step.quantization["level"]} == {level}  # type: ignore[index]
    assert min(report.snr_db.values()) > 20
    assert {name.split(".")[0] for name in report.snr_db} == set(FILES)
    runner = rnnx.Seq2Seq(tmp_path / "small")
    assert not runner.contract.checked
    ids, lengths = np.random.default_rng(0).integers(0, 90, (3, 5)), np.array([5, 2, 4])
    _, scores = rnnx.Seq2Seq(src).generate(ids, lengths)
    np.testing.assert_allclose(runner.generate(ids, lengths)[1], scores, rtol=0.05)


def test_the_report_is_of_both_files(src: Path, tmp_path: Path) -> None:
    report = rnnx.quantize(src, tmp_path / "small", level="fp16-store")
    parts = [
        rnnx.quantize(src / f"{name}.onnx", tmp_path / f"{name}.onnx", level="fp16-store")
        for name in FILES
    ]
    assert report.source_bytes == sum(part.source_bytes for part in parts)
    assert report.output_bytes == sum(part.output_bytes for part in parts)
    weaker = ["all", "chunks", "none"]
    assert report.invariance == max((part.invariance for part in parts), key=weaker.index)
    assert sum(report.changed.values()) == sum(sum(part.changed.values()) for part in parts)


def test_each_file_keeps_the_budget_and_the_reasons_are_of_both(src: Path, tmp_path: Path) -> None:
    report = rnnx.quantize(src, tmp_path / "small", level="auto", budget="snr=55")
    assert min(report.snr_db.values()) >= 55
    assert report.budget == "snr=55"
    assert {reason.split(":")[0] for reason in report.reasons} == set(FILES)
    assert (report.chosen, report.front, report.levels) == (None, (), ())
    assert not list(tmp_path.rglob("*journal*"))


def test_no_picture_is_promised_of_two_searches(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, picture = tmp_path / "small", tmp_path / "front.png"
    auto = ("--level", "auto", "--budget", "snr=30", "--picture", picture)
    ended = run(capsys, "quantize", src, "-o", small, *auto)
    assert ended.code == 2
    assert "a folder has two" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == [src.name]


def test_the_single_file_is_left_behind_and_told(src: Path, tmp_path: Path) -> None:
    (src / "greedy.onnx").write_bytes((src / "step.onnx").read_bytes())
    report = rnnx.quantize(src, tmp_path / "small", level="fp16-store")
    assert any("greedy.onnx" in note for note in report.notes)
    assert not (tmp_path / "small" / "greedy.onnx").exists()


def _sources(count: int = 30) -> np.ndarray:
    return np.random.default_rng(1).integers(2, 90, (count, 7))


def _written(folder: Path, run: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What an encoder-decoder writes, without its end."""
    return rnnx.Seq2Seq(folder).generate(run["src"], run["lengths"]).ids


@pytest.mark.parametrize("as_array", [True, False], ids=["array", "arrays by name"])
def test_both_files_are_measured_on_what_they_meet(
    src: Path, tmp_path: Path, as_array: bool
) -> None:
    """Four bits that are rounded by real states are nearer on what is really written."""
    data = _sources() if as_array else {"src": _sources(), "lengths": np.full(30, 7)}
    report = rnnx.quantize(src, tmp_path / "small", level="int4-store", calibration=data)
    assert (report.measured_on, report.batch) == ("calibration data", 30)
    rnnx.quantize(src, tmp_path / "blind", level="int4-store")
    held_out = np.random.default_rng(2).integers(2, 90, (40, 9))
    errors = [_error(src, tmp_path / name, held_out) for name in ("small", "blind")]
    assert errors[0] < 0.7 * errors[1]


def _error(original: Path, small: Path, ids: np.ndarray) -> float:
    """The power of what a smaller step gives otherwise than the original's, on its way."""
    runners, error = (rnnx.Seq2Seq(original), rnnx.Seq2Seq(small)), 0.0
    memory, state = runners[0].encode(ids)
    token = np.full(len(ids), runners[0].contract.start)
    for _ in range(runners[0].contract.max_length):
        (logits, following), (found, _) = (r.step(token, state, memory) for r in runners)
        error += float(np.square(found - logits).sum())
        token, state = logits.argmax(-1), following
    return error


def _matching(outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> float:
    """How many of the labels' ids are written."""
    assert outputs["scores"].shape == outputs["lengths"].shape == (30,)
    inside = np.arange(outputs["ids"].shape[1]) < outputs["lengths"][:, None]
    assert (outputs["ids"][~inside] == 1).all()  # the end
    found = (row[:n] for row, n in zip(outputs["ids"], outputs["lengths"], strict=True))
    pairs = zip(found, inputs["label"], strict=True)
    return float(np.mean([np.array_equal(ids, label[label >= 0]) for ids, label in pairs]))


def _labelled(src: Path) -> dict[str, np.ndarray]:
    """Sources, and as labels what the original writes of them, filled up with -1."""
    run = {"src": _sources(), "lengths": np.random.default_rng(3).integers(1, 8, 30)}
    label = np.full((30, 8), -1)
    for row, ids in zip(label, _written(src, run), strict=True):
        row[: len(ids)] = ids
    return run | {"label": label}


def test_a_metric_is_of_what_both_files_write(src: Path, tmp_path: Path) -> None:
    data = _labelled(src)
    options = {"level": "int4-store", "calibration": data, "metric": _matching}
    report = rnnx.quantize(src, tmp_path / "small", **options)  # type: ignore[arg-type]
    assert (report.metric, report.source_figure) == ("_matching", 1.0)
    pairs = zip(_written(tmp_path / "small", data), data["label"], strict=True)
    own = np.mean([np.array_equal(ids, label[label >= 0]) for ids, label in pairs])
    assert report.figure == own < 1


def test_all_levels_of_both_files_side_by_side(src: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"calibration": _labelled(src), "metric": _matching}
    found = compare_levels(src, **options | {"calibration": iter([options["calibration"]])})
    assert (found.figure, [each.level for each in found.levels]) == (1.0, list(LEVELS))
    assert found.bytes == sum((src / f"{name}.onnx").stat().st_size for name in FILES)
    report = rnnx.quantize(src, tmp_path / "small", level="int4-store", **options)
    compared = next(each for each in found.levels if each.level == "int4-store")
    assert compared.figure == report.figure
    assert compared.report is not None
    assert compared.report.output_bytes == report.output_bytes
    with pytest.raises(rnnx.QuantizationError, match="quantized already"):
        compare_levels(tmp_path / "small", **options)


@pytest.mark.parametrize("budget", ["metric=-10%", "size=55KB"])
def test_both_files_together_keep_a_budget(src: Path, tmp_path: Path, budget: str) -> None:
    options = {"level": "auto", "calibration": _labelled(src), "metric": _matching}
    report = rnnx.quantize(src, tmp_path / "small", budget=budget, **options)  # type: ignore[arg-type]
    assert report.budget == budget
    files = [tmp_path / "small" / f"{name}.onnx" for name in FILES]
    assert report.output_bytes == sum(file.stat().st_size for file in files)
    assert {name.split(".")[0] for name in report.bits} <= set(FILES)
    if budget == "size=55KB":
        assert 45 * 1024 < report.output_bytes <= 55 * 1024
    else:
        assert report.figure is not None
        assert 0.9 <= report.figure < 1
        assert report.ratio > 3
    assert not list(tmp_path.rglob("*journal*"))


def test_a_search_that_was_ended_goes_on(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"level": "auto", "budget": "snr=40", "calibration": _sources()}
    whole, told = listing(tmp_path), list[str]()

    def stop(text: str) -> None:
        told.append(text)
        if text.startswith("step.onnx: measuring every level"):
            raise KeyboardInterrupt

    (tmp_path / "aside").mkdir()
    roundabout = tmp_path / "aside" / ".." / "small"
    with pytest.raises(KeyboardInterrupt):
        rnnx.quantize(src, roundabout, tell=stop, **options)  # type: ignore[arg-type]
    (tmp_path / "aside").rmdir()
    left = {path.name for path in tmp_path.iterdir()} - {"model"}
    assert left == {f"small.{name}.onnx.journal.jsonl" for name in FILES}
    rnnx.quantize(src, tmp_path / "small", tell=told.append, **options)  # type: ignore[arg-type]
    assert sum("going on" in text for text in told) == 2
    assert not list(tmp_path.rglob("*journal*"))
    rnnx.quantize(src, tmp_path / "anew", **options)  # type: ignore[arg-type]
    for name in FILES:
        paths = [tmp_path / folder / f"{name}.onnx" for folder in ("small", "anew")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert whole.items() <= listing(tmp_path).items()


@pytest.mark.parametrize("other", ["labels", "ends", "budget"])
def test_a_search_with_other_figures_begins_anew_or_is_refused(
    src: Path, tmp_path: Path, other: str
) -> None:
    """What was measured of other labels, or beside another encoder, is worth nothing here."""
    options: dict[str, Any] = {"level": "auto", "metric": _matching, "calibration": _labelled(src)}

    def stop(text: str) -> None:
        if text.startswith("step.onnx: measuring every level"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rnnx.quantize(src, tmp_path / "small", budget="metric=-10%", tell=stop, **options)
    journals = {name: _read(tmp_path / f"small.{name}.onnx.journal.jsonl") for name in FILES}
    if other == "budget":
        rnnx.quantize(src, tmp_path / "small", budget="metric=-60%", **options)
        rnnx.quantize(src, tmp_path / "anew", budget="metric=-60%", **options)
        for name in FILES:
            assert _read(tmp_path / f"small/{name}.onnx") == _read(tmp_path / f"anew/{name}.onnx")
        return
    if other == "labels":
        options["calibration"]["label"] = options["calibration"]["label"][::-1]
    else:
        path = src / "contract.json"
        path.write_text(path.read_text().replace('"max_length": 8', '"max_length": 2'))
    with pytest.raises(rnnx.InputError, match=r"encoder\.onnx.* is of another search"):
        rnnx.quantize(src, tmp_path / "small", budget="metric=-10%", **options)
    for name, journal in journals.items():
        assert _read(tmp_path / f"small.{name}.onnx.journal.jsonl") == journal


def _read(path: Path) -> bytes:
    return path.read_bytes()


def test_the_step_is_measured_on_all_sources_of_a_long_memory(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not all can be kept, it is of every source."""
    monkeypatch.setattr(pair, "MOST_STEPS", 60)
    sources = read_sources(src, _sources(40), has_labels=False)
    runs = step_runs(src, sources)
    assert 40 <= sum(len(run["token"]) for run in runs) <= 60
    assert len(runs) == 5  # of eight sources each
    whole = step_runs(src, sources[:1])
    assert {name: array.shape[1:] for name, array in runs[0].items()} == {
        name: array.shape[1:] for name, array in whole[0].items()
    }


WRONG = {
    "dtype": ({"src": np.zeros((2, 3), np.float32)}, "encoder"),
    "name": ({"source": _sources()}, "source"),
    "one value": (np.full((2, 3), 5), "one value"),
    "no batch": (_sources()[0], "src"),
    "no frame": ({"src": _sources(2), "lengths": np.array([0, 3])}, "lengths"),
    "too many frames": ({"src": _sources(2), "lengths": np.array([8, 3])}, "lengths"),
}


@pytest.mark.parametrize(
    "case", ["no-folder", "foreign", "metric", "budget", "chunk", "twice", *WRONG]
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    src: Path, tmp_path: Path, case: str
) -> None:
    dst = tmp_path / "small"
    options: dict[str, Any] = {}
    if case in WRONG:
        options["calibration"] = WRONG[case][0]
    if case == "metric":
        options["metric"] = _matching
    if case == "chunk":
        options["chunk"] = 2
    if case == "budget":
        options |= {"level": "auto", "budget": "metric=-1%", "calibration": _sources()}
    if case == "no-folder":
        (src / "contract.json").unlink()
    if case == "foreign":
        dst.mkdir()
        (dst / "mine.txt").write_text("mine")
    if case == "twice":
        rnnx.quantize(src, tmp_path / "once", level="fp16-store")
        src = tmp_path / "once"
    before = sorted(tmp_path.rglob("*"))
    errors = (rnnx.ArtifactError, rnnx.InputError, rnnx.QuantizationError)
    with pytest.raises(errors) as caught:
        rnnx.quantize(src, dst, **({"level": "fp16-store"} | options))
    assert caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("spelling", ["model", "small/../model", "linked"])
def test_the_original_is_not_written_over(src: Path, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "linked").symlink_to(src)
    before = listing(tmp_path)
    with pytest.raises(rnnx.InputError, match="would overwrite"):
        rnnx.quantize(src, tmp_path / spelling, level="fp16-store")
    assert listing(tmp_path) == before


def test_a_quantized_encoder_decoder_is_held_against_its_original(
    src: Path, exported: Path, tmp_path: Path
) -> None:
    rnnx.quantize(src, tmp_path / "q", level="int8-store")
    report = rnnx.check(tmp_path / "q", exported, probes=["sequence"])
    assert report.passed, report.to_text()
    assert report.artifact == str(tmp_path / "q")
    assert {f.output.partition(".")[0] for f in report.findings} == {"encoder", "step"}
    assert "step.logits" in {finding.output for finding in report.findings}
    assert not rnnx.check(tmp_path / "q", exported, probes=["sequence"], snr_db=100).passed
    with pytest.raises(rnnx.InputError, match="is a folder: an encoder-decoder is held against"):
        rnnx.check(tmp_path / "q", exported, locate=True)
