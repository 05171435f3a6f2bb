from __future__ import annotations

import io
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.sinks import Sink
from rnnx_runtime import Contract, Port

Y = Port("y", "float32", ("batch", "time", 2), 0, 1)
LATE = Port("late", "int64", ("time", "batch"), 1, 0, delay=2)
TOTAL = Port("total", "float32", ("batch", 1, 2), 0)


def written(outputs: tuple[Port, ...], *results: Any, as_json: bool = False) -> list[str]:
    """What a sink writes for results of one frame fed each, the last of them from flush."""
    file = io.StringIO()
    sink = Sink(file, Contract((), outputs), as_json=as_json)
    for position, result in enumerate(results[:-1], start=1):
        sink.write(result, position)
    sink.write(results[-1], len(results) - 1, last=True)
    lines = file.getvalue().splitlines()
    assert sink.rows == len(lines) - (not as_json)
    return lines


def y(*frames: float) -> Any:
    return np.array([[[value, -value] for value in frames]], np.float32).reshape(1, -1, 2)


def late(*frames: int) -> Any:
    return np.array(frames, np.int64).reshape(-1, 1)


def test_an_output_waits_for_the_one_that_lags() -> None:
    lines = written(
        (Y, LATE),
        {"y": y(0.5), "late": late()},
        {"y": y(1.5), "late": late()},
        {"y": y(2.5), "late": late(10)},
        {"y": y(), "late": late(11, 12)},
    )
    assert lines == ["frame,y0,y1,late0", "0,0.5,-0.5,10", "1,1.5,-1.5,11", "2,2.5,-2.5,12"]


def test_at_the_end_nothing_waits() -> None:
    lines = written((Y, LATE), {"y": y(1, 2), "late": late(7)}, {"y": y(), "late": late()})
    assert lines[1:] == ["0,1.0,-1.0,7", "1,2.0,-2.0,"]


def test_a_value_without_time_axis_stands_in_the_last_row_of_its_feed() -> None:
    total = np.array([[[3, 4]]], np.float32)
    results = {"y": y(1, 2), "total": total}, {"y": y(), "total": total}
    assert written((Y, TOTAL), *results) == [
        "frame,y0,y1,total0,total1",
        "0,1.0,-1.0,,",
        "1,2.0,-2.0,3.0,4.0",
    ]
    objects = [json.loads(line) for line in written((Y, TOTAL), *results, as_json=True)]
    assert objects == [
        {"frame": 0, "y": [1, -1]},
        {"frame": 1, "y": [2, -2], "total": [[3, 4]]},
    ]


def test_csv_numbers_read_back_to_the_same_float32() -> None:
    values = np.random.default_rng(0).standard_normal((1, 50, 2)).astype(np.float32)
    lines = written((Y,), values, y())
    read = np.loadtxt(lines, delimiter=",", skiprows=1, dtype=np.float64)[:, 1:]
    assert np.array_equal(read.astype(np.float32), values[0])


def test_json_has_no_nan() -> None:
    lines = written((Y,), np.array([[[np.nan, 1], [np.inf, 2]]], np.float32), y(), as_json=True)
    assert [json.loads(line)["y"] for line in lines] == [[None, 1], [None, 2]]
    assert "NaN" not in "".join(lines)


def test_columns_of_numbered_outputs_are_told_apart() -> None:
    ports = tuple(
        Port(name, "int64", ("time", size), None, 0) for name, size in (("y", 11), ("y1", 1))
    )
    (header,) = written(ports, {"y": np.zeros((0, 11), int), "y1": np.zeros((0, 1), int)})
    columns = header.split(",")
    assert len(set(columns)) == len(columns) == 13


def test_each_write_is_flushed() -> None:
    seen: list[str] = []

    class Pipe(io.StringIO):
        def flush(self) -> None:
            seen.append(self.getvalue())

    sink = Sink(Pipe(), Contract((), (Y,)), as_json=False)
    sink.write(y(1), 1)
    assert seen == ["frame,y0,y1\n", "frame,y0,y1\n0,1.0,-1.0\n"]


strides = st.sampled_from([Fraction(1), Fraction(2), Fraction(3), Fraction(160), Fraction(1, 2)])


@given(
    strides=st.lists(strides, min_size=1, max_size=3),
    rate=st.sampled_from([None, 100.0, 16000.0, 44100.0]),
    pieces=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=6),
    remember=st.booleans(),
)
def test_every_frame_stands_once_at_its_own_time(
    strides: list[Fraction], rate: float | None, pieces: list[list[int]], remember: bool
) -> None:
    ports = tuple(
        Port(f"y{i}", "float32", ("time",), None, 0, stride=stride)
        for i, stride in enumerate(strides)
    )
    file, contract = io.StringIO(), Contract((), ports)
    sink, given_out = Sink(file, contract, as_json=True, rate=rate), [0] * len(ports)
    for number, piece in enumerate(pieces):
        results = {}
        for i, port in enumerate(ports):
            results[port.name] = np.arange(given_out[i], given_out[i] + piece[i], dtype=np.float32)
            given_out[i] += piece[i]
        result = results if len(ports) > 1 else results["y0"]
        sink.write(result, number, last=number == len(pieces) - 1)
        if remember:  # a sink that goes on where another stopped
            memory = json.loads(json.dumps(sink.memory()))
            sink = Sink(file, contract, as_json=True, rate=rate, memory=memory)
    rows = [json.loads(line) for line in file.getvalue().splitlines()]
    tick = Fraction(1, 2) if Fraction(1, 2) in strides else None
    for i, stride in enumerate(strides):
        held = [row for row in rows if f"y{i}" in row]
        assert [row[f"y{i}"] for row in held] == list(range(given_out[i]))
        times = [index * stride for index in range(given_out[i])]
        if rate is not None:
            assert [row["seconds"] for row in held] == [
                round(t / rate, 9) for t in map(float, times)
            ]
        if len(strides) == 1:
            assert [row["frame"] for row in held] == list(range(given_out[i]))
        elif tick:
            assert [row["frame"] * tick for row in held] == times
    assert [row["frame"] for row in rows] == sorted({row["frame"] for row in rows})
    assert all(("seconds" in row) == (rate is not None) for row in rows)
    assert sink.rows == len(rows)


def test_outputs_of_two_rates_share_the_rows_of_their_common_times() -> None:
    slow = Port("slow", "float32", ("time",), None, 0, stride=Fraction(2))
    fast = Port("fast", "float32", ("time", 2), None, 0)
    file = io.StringIO()
    sink = Sink(file, Contract((), (slow, fast)), as_json=False, rate=100)
    numbers = np.arange(10, dtype=np.float32)
    sink.write({"slow": numbers[:1], "fast": numbers[:6].reshape(3, 2)}, 3)
    assert file.getvalue().splitlines() == [
        "frame,seconds,slow0,fast0,fast1",
        "0,0.0,0.0,0.0,1.0",
        "1,0.01,,2.0,3.0",
    ]
    sink.write({"slow": numbers[1:2], "fast": numbers[:0].reshape(0, 2)}, 4, last=True)
    assert file.getvalue().splitlines()[3:] == ["2,0.02,1.0,4.0,5.0"]


@pytest.mark.parametrize(
    ("first_chunk", "rows"), [(1, ["0,0.0,3.0,4.0"]), (2, ["0,0.0,3.0,4.0"] * 2)]
)
def test_a_value_without_time_axis_has_a_row_for_the_flush_if_that_ran(
    first_chunk: int, rows: list[str]
) -> None:
    file, total = io.StringIO(), np.array([[[3, 4]]], np.float32)
    contract = Contract((), (TOTAL,), first_chunk=first_chunk, streaming=True)
    sink = Sink(file, contract, as_json=False, rate=8)
    sink.write(total, 1)
    sink.write(total, 1, last=True)
    assert file.getvalue().splitlines() == ["frame,seconds,total0,total1", *rows]
