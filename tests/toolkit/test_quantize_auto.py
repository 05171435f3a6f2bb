"""Level auto: the least bytes that keep a budget, never more than a uniform level that keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import rnnx
from rnnx.quantization.budget import Budget
from rnnx.quantization.levels import LEVELS

pytestmark = pytest.mark.usefixtures("short_timing")

IDS = np.random.default_rng(0).integers(0, 60, (1, 300))


class Net(nn.Module):
    """Layers that bear unlike numbers of bits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(60, 24)
        self.recurrent = getattr(nn, kind)(24, 48, batch_first=True)
        self.head = nn.Linear(48, 60)
        with torch.no_grad():
            self.head.weight[::7] *= 20  # rows of their own scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.embedding(x))[0])


def exported(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    path = folder / f"{kind}.onnx"
    rnnx.export(Net(kind), (torch.randint(0, 60, (2, 9)),), path, streaming=True)
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("auto"), "GRU")


def snr_db(path: Path, small: Path) -> float:
    """Of the worst output or state, by hand."""
    worst = np.inf
    streams = [rnnx.Stream(path), rnnx.Stream(small)]
    values: list[dict[str, list[Any]]] = [{}, {}]
    for frame in range(IDS.shape[1]):
        for stream, kept in zip(streams, values, strict=True):
            y = stream.feed(IDS[:, frame : frame + 1])
            for name, value in {"y": y, **stream.states()}.items():
                kept.setdefault(name, []).append(np.array(value))
    for name, wanted in values[0].items():
        error = np.array(values[1][name]) - np.array(wanted)
        worst = min(worst, 10 * np.log10(np.square(wanted).sum() / np.square(error).sum()))
    return float(worst)


@pytest.mark.parametrize(("kind", "wanted"), [("GRU", 24), ("LSTM", 34), ("RNN", 50)])
def test_it_keeps_the_snr_and_is_no_larger_than_any_level_that_does(
    tmp_path: Path, kind: str, wanted: int
) -> None:
    artifact, small = exported(tmp_path, kind), tmp_path / "auto.onnx"
    report = rnnx.quantize(artifact, small, level="auto", budget=f"snr={wanted}", calibration=IDS)
    assert snr_db(artifact, small) >= wanted - 0.05  # float32 sums in another order
    for level in LEVELS:
        other = rnnx.quantize(artifact, tmp_path / f"{level}.onnx", level=level, calibration=IDS)
        if (other.worst_snr_db or 0) >= wanted:
            # The names of levels differ in length, and bits are listed in the contract.
            assert report.output_bytes <= other.output_bytes + 1024
    contract = rnnx.load_contract(small)
    assert contract.quantization is not None
    assert contract.quantization["budget"] == f"snr={wanted}"


def test_it_keeps_the_size_and_a_larger_one_gives_more(artifact: Path, tmp_path: Path) -> None:
    found = []
    for size in (26, 40):
        report = rnnx.quantize(
            artifact, tmp_path / "m.onnx", level="auto", budget=f"size={size}KB", calibration=IDS
        )
        assert (tmp_path / "m.onnx").stat().st_size <= size * 1024
        found.append(report.worst_snr_db or 0.0)
    assert found[0] < found[1]


def test_the_front_is_beaten_by_nothing_and_every_part_has_a_reason(
    artifact: Path, tmp_path: Path
) -> None:
    report = rnnx.quantize(
        artifact, tmp_path / "m.onnx", level="auto", budget="snr=30", calibration=IDS
    )
    sizes, ratios = ([getattr(p, name) for p in report.front] for name in ("bytes", "snr_db"))
    assert sizes == sorted(set(sizes))
    assert ratios == sorted(set(ratios))
    assert len(report.reasons) == len(report.bits)
    assert set(report.bits.values()) <= {4, 8, 16}


@pytest.mark.parametrize("budget", ["snr=300", "size=1KB"])
def test_what_cannot_be_kept_is_refused_with_the_nearest(
    artifact: Path, tmp_path: Path, budget: str
) -> None:
    with pytest.raises(rnnx.QuantizationError, match="the nearest is a file of"):
        rnnx.quantize(artifact, tmp_path / "s.onnx", level="auto", budget=budget, calibration=IDS)
    assert not (tmp_path / "s.onnx").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"level": "auto"}, "come together"),
        ({"level": "int8", "budget": "snr=30"}, "come together"),
        ({"level": "auto", "budget": "snr=30", "tune": True}, "nothing to tune"),
        ({"level": "auto", "budget": "loud"}, "is no budget"),
        ({"level": "auto", "budget": "size=-3KB"}, "is no budget"),
        ({"level": "auto", "budget": "size=3GB"}, "is no budget"),
        ({"level": "auto", "budget": "snr=3KB"}, "is no budget"),
        ({"level": "auto", "budget": "snr=1.2.3"}, "is no budget"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(rnnx.InputError, match=reason):
        rnnx.quantize(tmp_path / "none.onnx", tmp_path / "s.onnx", **options)


@given(st.floats(0.5, 9000), st.sampled_from([("", 1), ("B", 1), ("KB", 1024), ("mb", 1024**2)]))
def test_sizes_are_read_in_steps_of_1024(number: float, unit: tuple[str, int]) -> None:
    budget = Budget.parse(f"size={number:f}{unit[0]}")
    assert budget.amount == int(float(f"{number:f}") * unit[1])
