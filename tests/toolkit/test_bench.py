from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attending
from artifacts import gru_artifact
from command_line import exit_code
from lagging import lagging
from rnnx import InputError, Stream, bench, starting
from rnnx.bench import cold_caches, measure, one_core
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


def test_what_goes_before_a_call_is_not_timed(clock: Clock) -> None:
    runs = {name: clock.run(name, lambda: 1000) for name in "ab"}
    before = clock.run("-", lambda: 10**6)
    timing = measure(runs, seconds=1e-6, warmup=1, before=before)["b"]
    assert (timing.median, timing.p99) == (1, 1)
    assert clock.calls[:4] == ["-", "a", "-", "b"]
    assert clock.calls.count("-") == clock.calls.count("a") + clock.calls.count("b")


def test_cold_caches_are_read_whole() -> None:
    assert cold_caches()() == 8 << 20  # eight bytes each


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system pins no process")
def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_a_failing_run_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        measure({"a": lambda: 1 / 0})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No processes are started, and caches stay warm; the artifacts that would be, in order."""
    monkeypatch.setattr(bench, "_CACHES", 1 << 10)
    paths: list[str] = []

    def start(path: str, chunk: int, batch: int) -> starting.Start:
        paths.append(path)
        ms = float(len(paths))
        return starting.Start(imports=ms, opening=ms + 1, first_call=ms + 2, memory=3 << 20)

    monkeypatch.setattr(starting, "_start", start)
    return paths


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_for_each_artifact_chunk_and_batch(
    tmp_path: Path, capsys: Capture, streaming: bool, started: list[str]
) -> None:
    paths = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]
    for path in paths:
        gru_artifact(Path(path), streaming=streaming)
    options = ["--chunk", 2, "--chunk", 5, "--batch", 1, "--batch", 3, "--seconds", 0.01]
    assert exit_code("bench", paths[0], "--against", paths[1], *options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(r["model"], r["chunk"], r["batch"]) for r in printed["calls"]] == [
        (path, chunk, batch) for batch in (1, 3) for chunk in (2, 5) for path in paths
    ]
    for record in printed["calls"]:
        assert 0 < record["median"] <= record["p95"] <= record["p99"]
        assert 0 < record["cold_median"] <= record["cold_p95"] <= record["cold_p99"]
        assert record["frame"] == pytest.approx(record["median"] / record["chunk"])
        assert record["real_time"] is None
    for ratio in ("ratio", "cold_ratio"):
        assert [record[ratio] for record in printed["calls"][::2]] == [1] * 4
    assert started == paths * 9  # in turn
    a, b = printed["starts"]
    assert a == {
        "model": paths[0],
        "imports": 9,
        "opening": 10,
        "first_call": 11,
        "memory": 3 << 20,
    }
    assert b["imports"] == 10


def test_an_artifact_against_itself(tmp_path: Path, capsys: Capture, started: list[str]) -> None:
    path = tmp_path / "sum.onnx"
    running_sum(path)
    assert exit_code("bench", path, "--against", path, "--seconds", 0.01, "--json") == 0
    calls = json.loads(capsys.readouterr().out)["calls"]
    assert [(r["model"], r["chunk"]) for r in calls] == [(str(path), c) for c in (1, 1, 16, 16)]
    assert all(record["ratio"] > 0 for record in calls)


def test_all_get_the_same_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    fed: list[Any] = []
    feed = Stream.feed
    monkeypatch.setattr(Stream, "feed", lambda self, x: fed.append(x) or feed(self, x))
    running_sum(tmp_path / "sum.onnx")
    path = tmp_path / "sum.onnx"
    options = ["--against", path, "--chunk", 3, "--seconds", 0.001]
    assert exit_code("bench", path, *options) == 0
    assert len({id(feeds) for feeds in fed}) == 1


def test_the_tables(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    timing = bench.Timing(calls=100, median=12.5, p95=20.04, p99=31.0, ratio=1.0)
    monkeypatch.setattr(bench, "measure", lambda runs, **_: dict.fromkeys(runs, timing))
    running_sum(tmp_path / "sum.onnx", sample_rate=16000.0)
    path = tmp_path / "sum.onnx"
    assert exit_code("bench", path, "--chunk", 5) == 0
    printed = capsys.readouterr()
    header, _, row, empty, starts_header, _, starts_row = printed.out.splitlines()
    assert header.split("  ")[0] == starts_header.split("  ")[0] == "model"
    assert empty == ""
    # 5 frames in 12.5 us are 2.5 us a frame; at 16 kHz one comes every 62.5 us.
    calls = ["5", "1", "12.5", "31.0", "1.00", "12.5", "1.00", "2.50", "25"]
    assert row.split() == [str(path), *calls]
    assert starts_row.split() == [str(path), "5.0", "6.0", "7.0", "3.0"]
    assert "measuring chunks of 5" in printed.err


@pytest.mark.parametrize("known", [True, False])
def test_ids_and_several_inputs(
    tmp_path: Path, capsys: Capture, known: bool, started: list[str]
) -> None:
    path = tmp_path / "ids.onnx"
    facts: dict[str, Any] = {"table": np.eye(5, 2)} if known else {"dtype": "int64"}
    running_sum(path, inputs=("a", "b") if not known else ("x",), **facts)
    assert exit_code("bench", path, "--seconds", 0.001, "--json") == 0
    calls = json.loads(capsys.readouterr().out)["calls"]
    assert [record["chunk"] for record in calls] == [1, 16]


def test_chunks_that_are_no_runs(tmp_path: Path, capsys: Capture, started: list[str]) -> None:
    """Where frames are held back, a call of fewer than a run takes would measure nothing."""
    path = lagging(tmp_path, "frames")[1].path
    assert exit_code("bench", path, "--seconds", 0.001, "--json") == 0
    calls = json.loads(capsys.readouterr().out)["calls"]
    assert [record["chunk"] for record in calls] == [160, 2560]
    assert exit_code("bench", path, "--chunk", 100) == 2
    assert "multiples of 160 frames" in capsys.readouterr().err


def test_an_encoder_decoder(tmp_path: Path, capsys: Capture, started: list[str]) -> None:
    folder = tmp_path / "folder"
    attending.write_folder(folder, attending.weights())
    assert exit_code("bench", folder) == 2
    printed = capsys.readouterr()
    assert f"`rnnx bench {folder}/step.onnx`" in printed.err
    for name in ("encoder", "step"):
        assert exit_code("bench", folder / f"{name}.onnx", "--seconds", 0.001) == 0


def test_artifacts_of_other_inputs_are_not_compared(
    tmp_path: Path, capsys: Capture, started: list[str]
) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    gru_artifact(paths[0])
    gru_artifact(paths[1], features=5)
    assert exit_code("bench", paths[0], "--against", paths[1]) == 2
    printed = capsys.readouterr()
    assert f"{str(paths[1])!r} cannot be measured: input 'x' has shape [1, 1, 3]" in printed.err
    assert "measuring" not in printed.err
    assert started == []


@pytest.mark.parametrize("name", ["streaming", "offline", "held"])
def test_a_start_is_a_process_of_its_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / "gru.onnx"
    if name == "held":
        path = Path(lagging(tmp_path, "frames")[1].path)
    else:
        gru_artifact(path, streaming=name == "streaming")
    start = starting._start(str(path), 160, 1)
    assert min(start.imports, start.opening, start.first_call) > 0
    # Not what this process has held, which has torch or onnx in it and more.
    assert 0 < start.memory < 100 << 20


def test_a_start_that_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"starts 'none.onnx' failed: .*no file at 'none.onnx'"):
        starting._start("none.onnx", 1, 1)


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
