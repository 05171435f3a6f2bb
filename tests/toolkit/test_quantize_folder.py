"""An encoder-decoder's folder, quantized: both files, one contract, and it still decodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from command_line import listing

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
    assert {reason.split(":")[0] for reason in report.reasons} == set(FILES)
    assert (report.chosen, report.front, report.levels) == (None, (), ())
    assert [path.name for path in (tmp_path / "small").glob("*journal*")] == []


def test_the_single_file_is_left_behind_and_told(src: Path, tmp_path: Path) -> None:
    (src / "greedy.onnx").write_bytes((src / "step.onnx").read_bytes())
    report = rnnx.quantize(src, tmp_path / "small", level="fp16-store")
    assert any("greedy.onnx" in note for note in report.notes)
    assert not (tmp_path / "small" / "greedy.onnx").exists()


@pytest.mark.parametrize("case", ["no-folder", "foreign", "data", "twice"])
def test_what_cannot_be_is_refused_and_nothing_is_written(
    src: Path, tmp_path: Path, case: str
) -> None:
    dst = tmp_path / "small"
    data = np.zeros((1, 2), np.int64) if case == "data" else None
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
        rnnx.quantize(src, dst, level="fp16-store", calibration=data)
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
