"""Real time against a clock that is told when to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import assert_refused, run
from rnnx.pacing import Pace
from rnnx_runtime import Contract, Port
from running_sums import frames, running_sum

Capture = pytest.CaptureFixture[str]
CONTRACT = Contract((Port("x", "float32", ("time", 2), None, 0),), ())


class Clock:
    """A clock that stands still but when someone sleeps or works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rnnx.pacing.time", clock)
    return clock


def chunks(*lengths: int) -> Iterator[dict[str, Any]]:
    return ({"x": np.zeros((length, 2), np.float32)} for length in lengths)


def worked(clock: Clock, pace: Pace, lengths: list[int], seconds: list[float]) -> list[float]:
    """When each chunk came, from the start on, where each took so long to answer."""
    came = []
    for _, work in zip(pace.held_back(chunks(*lengths)), [*seconds, 0], strict=False):
        came.append(clock.now - 1000)
        clock.now += work
    return came


def test_chunks_come_when_their_last_frame_would(clock: Clock) -> None:
    pace = Pace(CONTRACT, rate=10)
    came = worked(clock, pace, [5, 5, 5, 3], [0.1, 0.2, 0.3, 0.1])
    assert came == pytest.approx([0.5, 1.0, 1.5, 1.8])
    told = pace.lateness()
    assert (told.chunks, told.missed) == (4, 0)
    assert told.max_ms == pytest.approx(300)
    assert told.p50_ms == pytest.approx(150)


def test_who_is_late_is_not_waited_for_and_misses_until_it_has_caught_up(clock: Clock) -> None:
    pace = Pace(CONTRACT, rate=10)
    came = worked(clock, pace, [5] * 5, [0.9, 0.3, 0.1, 0.1, 0.1])
    assert came == pytest.approx([0.5, 1.4, 1.7, 2.0, 2.5])
    told = pace.lateness()
    assert (told.chunks, told.missed) == (5, 2)  # 900 and 700 ms, at 500 ms a chunk; then 300
    assert told.max_ms == pytest.approx(900)
    late = [900, 700, 300, 100, 100]
    assert told.p95_ms == pytest.approx(np.percentile(late, 95))
    assert told.p99_ms == pytest.approx(np.percentile(late, 99))


def test_the_command_tells_how_late_it_was(tmp_path: Path, clock: Clock, capsys: Capture) -> None:
    running_sum(tmp_path / "adder.onnx", sample_rate=50.0)
    np.save(tmp_path / "x.npy", frames(20))
    options = ("stream", tmp_path / "adder.onnx", "--input", tmp_path / "x.npy", "--realtime")
    ended = run(capsys, *options, "--chunk", 8)
    assert ended.code == 0
    assert clock.slept == pytest.approx([0.16, 0.16, 0.08])
    assert "3 chunks in real time, 0 deadlines missed; late p50 0.000 ms" in ended.err
    assert len(ended.out.splitlines()) == 21
    ended = run(capsys, *options, "--json")
    *rows, last = map(json.loads, ended.out.splitlines())
    assert [row["seconds"] for row in rows] == [round(index / 50, 9) for index in range(20)]
    assert last["realtime"] == {
        "chunks": 20,
        "missed": 0,
        "p50_ms": pytest.approx(0, abs=1e-6),
        "p95_ms": pytest.approx(0, abs=1e-6),
        "p99_ms": pytest.approx(0, abs=1e-6),
        "max_ms": pytest.approx(0, abs=1e-6),
    }


def test_real_time_takes_a_rate_and_what_is_not_live(
    tmp_path: Path, clock: Clock, capsys: Capture
) -> None:
    running_sum(tmp_path / "adder.onnx")
    np.save(tmp_path / "x.npy", frames(20))
    options = ("stream", tmp_path / "adder.onnx", "--realtime", "--input")
    assert_refused(run(capsys, *options, tmp_path / "x.npy"), "nothing tells how many frames")
    assert_refused(run(capsys, *options, "-", "--rate", 100), "'-' is live as it is")
    assert run(capsys, *options, tmp_path / "x.npy", "--rate", 100).code == 0
    assert sum(clock.slept) == pytest.approx(0.2)
