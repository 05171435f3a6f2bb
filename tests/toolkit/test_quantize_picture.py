"""The picture of a search: every level has its name, and no name hides another."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from command_line import run
from quantizable import streaming_lstm
from rnnx.quantization import front_picture, quality
from rnnx.quantization.front_picture import draw
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.report import Point, QuantizationReport


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[QuantizationReport], Figure]:
    """Draws a report; gives the figure."""

    def figure_of(report: QuantizationReport) -> Figure:
        figures: list[Figure] = []
        monkeypatch.setattr(front_picture, "save", lambda figure, path: figures.append(figure))
        draw("picture.png", report)
        return figures[0]

    return figure_of


def report_of(
    levels: list[Point], mixtures: list[Point], budget: str = "snr=30"
) -> QuantizationReport:
    return QuantizationReport(
        level="auto",
        source_bytes=200_000,
        output_bytes=mixtures[0].bytes,
        changed={"GRU": 1},
        snr_db={"y": 30.0},
        invariance="all",
        chunk=1,
        batch=1,
        agreement=None,
        step_time_ratio=1.0,
        measured_on="calibration data",
        notes=(),
        metric="loss",
        source_figure=2.0,
        budget=budget,
        chosen=mixtures[0],
        front=tuple(mixtures),
        levels=tuple(levels),
    )


def names(figure: Figure) -> dict[str, Annotation]:
    (axes,) = figure.axes
    texts = [text for text in axes.texts if isinstance(text, Annotation)]
    return {text.get_text().replace("\n", " "): text for text in texts}


points = st.tuples(st.integers(20_000, 120_000), st.floats(15, 90))


@given(
    levels=st.lists(points, min_size=len(LEVELS), max_size=len(LEVELS)),
    mixtures=st.lists(points, min_size=1, max_size=12),
    budget=st.sampled_from(["snr=30", "size=50KB", "metric=+0.5%", "metric=-0.5%"]),
)
@example(
    levels=[(20_000, 15.0)] * len(LEVELS), mixtures=[(20_000, 15.0)], budget="snr=30"
)  # one name of them all, longer than the picture is wide
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_level_is_named_and_no_name_hides_another(
    drawn: Callable[[QuantizationReport], Figure],
    levels: list[tuple[int, float]],
    mixtures: list[tuple[int, float]],
    budget: str,
) -> None:
    named = [
        Point(name, size, snr_db, {}, snr_db / 20)
        for name, (size, snr_db) in zip(LEVELS, levels, strict=True)
    ]
    others = [Point("mixture", size, snr_db, {"W": 4}, snr_db / 20) for size, snr_db in mixtures]
    found = names(drawn(report_of(named, others, budget)))
    told = [name for text in found for name in text.split(", ")]
    assert sorted(told) == sorted([*LEVELS, "mixture"])
    boxes = []
    for text in found.values():
        text.get_window_extent()
        boxes.append(Text.get_window_extent(text))
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_better_is_up_and_what_was_not_measured_is_left_out(
    drawn: Callable[[QuantizationReport], Figure],
) -> None:
    levels = [Point("int8", 50_000, None, {}, 2.1), Point("int4", 40_000, None, {}, None)]
    mixture = Point("mixture", 45_000, None, {"W": 4}, 2.05)
    lower, higher = (
        drawn(report_of(levels, [mixture], budget)) for budget in ("metric=+5%", "metric=-5%")
    )
    assert lower.axes[0].yaxis_inverted()
    assert not higher.axes[0].yaxis_inverted()
    assert names(lower).keys() == {"int8", "mixture"}


def test_the_command_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "_SECONDS", 0.0)
    streaming_lstm(tmp_path / "m.onnx")
    command = ["quantize", tmp_path / "m.onnx", "-o", tmp_path / "s.onnx", "--level", "auto"]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        ended = run(capsys, *command, "--budget", "snr=35", "--picture", tmp_path / "p.svg")
    assert ended.code == 0, ended.err
    assert "drew " in ended.err
    text = (tmp_path / "p.svg").read_text()
    assert all(name in text for name in LEVELS)
    assert "budget snr=35" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level", "auto", "--budget", "snr=30", "--picture", "p.gif"], "no .png, .svg or .pdf"),
        (["--level", "auto", "--budget", "snr=30", "--picture", "none/p.png"], "no folder"),
        (["--level", "int8", "--picture", "p.png"], "--level auto"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    streaming_lstm(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    ended = run(capsys, "quantize", "m.onnx", "-o", "s.onnx", *options)
    assert ended.code == 2
    assert message in ended.err
    assert "measuring" not in ended.err.replace("and measuring it", "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
