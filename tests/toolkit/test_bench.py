from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts import gru_artifact
from command_line import exit_code
from rnnx import bench
from rnnx.bench import measure
from running_sums import running_sum

Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that only its runs move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now * 1e-9)

    def run(self, name: str, nanoseconds: Callable[[], int]) -> Callable[[], object]:
        def call() -> None:
            self.calls.append(name)
            self.now += nanoseconds()

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_times_are_microseconds_and_ratios_are_to_the_first(clock: Clock) -> None:
    runs = {name: clock.run(name, lambda t=t: t) for name, t in (("a", 2000), ("b", 3000))}
    timings = measure(runs, seconds=1e-3)
    assert list(timings) == ["a", "b"]
    assert (timings["a"].median, timings["a"].p99, timings["a"].ratio) == (2, 2, 1)
    assert (timings["b"].median, timings["b"].p95, timings["b"].ratio) == (3, 3, 1.5)
    assert timings["a"].calls == timings["b"].calls
    # As long as asked: a millisecond for each variant, whole rounds of both.
    assert timings["a"].calls * 5e-6 == pytest.approx(2e-3, abs=2 * 20 * 5e-6)


def test_percentiles_are_of_all_calls(clock: Clock) -> None:
    ticks = count()
    run = clock.run("a", lambda: 1000 * (next(ticks) % 100))
    timing = measure({"a": run}, seconds=0.1, warmup=100)["a"]
    every = 1.0 * (np.arange(timing.calls) % 100)
    found = (timing.median, timing.p95, timing.p99)
    assert found == pytest.approx(tuple(np.percentile(every, [50, 95, 99])))


def test_the_warm_up_does_not_count(clock: Clock) -> None:
    calls = count()
    run = clock.run("a", lambda: 10**6 if next(calls) < 5 else 1000)
    assert measure({"a": run}, seconds=1e-4, warmup=5)["a"].p99 == 1


def test_variants_take_turns_in_both_orders(clock: Clock) -> None:
    runs = {name: clock.run(name, lambda: 1000) for name in "abc"}
    measure(runs, seconds=1e-6, warmup=0)
    rounds = [clock.calls[i : i + 20] for i in range(0, len(clock.calls), 20)]
    assert all(len(set(turn)) == 1 for turn in rounds)
    assert [turn[0] for turn in rounds] == ["a", "b", "c", "c", "b", "a"]


def test_a_machine_that_slows_down_does_not_change_the_ratio(clock: Clock) -> None:
    slow = count()
    runs = {
        "a": clock.run("a", lambda: 1000 * (1 + next(slow) // 40)),
        "b": clock.run("b", lambda: 1000 * (1 + next(slow) // 40)),
    }
    assert measure(runs, seconds=1e-2)["b"].ratio == pytest.approx(1, abs=0.05)


def test_a_failing_run_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        measure({"a": lambda: 1 / 0})


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_for_each_artifact_and_chunk(tmp_path: Path, capsys: Capture, streaming: bool) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        gru_artifact(path, streaming=streaming)
    options = ["--against", paths[1], "--chunk", 2, "--chunk", 5, "--batch", 3, "--seconds", 0.01]
    assert exit_code("bench", paths[0], *options, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [(Path(r["model"]), r["chunk"], r["batch"]) for r in records] == [
        (path, chunk, 3) for chunk in (2, 5) for path in paths
    ]
    for record in records:
        assert 0 < record["median"] <= record["p95"] <= record["p99"]
        assert record["frame"] == pytest.approx(record["median"] / record["chunk"])
        assert record["real_time"] is None
    assert [record["ratio"] for record in records[::2]] == [1, 1]


def test_the_table(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = bench.Timing(calls=100, median=12.5, p95=20.04, p99=31.0, ratio=1.0)
    monkeypatch.setattr(bench, "measure", lambda runs, seconds: dict.fromkeys(runs, timing))
    running_sum(tmp_path / "sum.onnx", sample_rate=16000.0)
    path = tmp_path / "sum.onnx"
    assert exit_code("bench", path, "--chunk", 5) == 0
    printed = capsys.readouterr()
    header, _, row = printed.out.splitlines()
    assert header.split("  ")[0] == "model"
    # 5 frames in 12.5 us are 2.5 us a frame; at 16 kHz one comes every 62.5 us.
    assert row.split() == [str(path), "5", "12.5", "20.0", "31.0", "2.5", "25", "1.00"]
    assert "measuring chunks of 5" in printed.err


@pytest.mark.parametrize("known", [True, False])
def test_ids_and_several_inputs(tmp_path: Path, capsys: Capture, known: bool) -> None:
    path = tmp_path / "ids.onnx"
    facts: dict[str, Any] = {"table": np.eye(5, 2)} if known else {"dtype": "int64"}
    running_sum(path, inputs=("a", "b") if not known else ("x",), **facts)
    assert exit_code("bench", path, "--seconds", 0.001, "--json") == 0
    assert [record["chunk"] for record in json.loads(capsys.readouterr().out)] == [1, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "0"], "not in the range"),
        (["--batch", "0"], "not in the range"),
        (["--seconds", "0"], "not in the range"),
        (["--against", "none.onnx"], "no file at 'none.onnx'"),
        (["--batch", "2"], "no batch axis"),
    ],
)
def test_misuse(tmp_path: Path, capsys: Capture, options: list[str], message: str) -> None:
    running_sum(tmp_path / "sum.onnx", dims=("time", 2))
    assert exit_code("bench", tmp_path / "sum.onnx", *options) == 2
    assert message in capsys.readouterr().err
