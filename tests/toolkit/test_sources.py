from __future__ import annotations

import json
import tempfile
import wave
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnnx.sources import open_source
from rnnx_runtime import Contract, InputError, Port
from rnnx_runtime.model import fit_inputs

LAYOUTS: list[tuple[tuple[int | str, ...], int | None, int]] = [
    (("batch", "time", 3), 0, 1),
    (("time", "batch", 3), 1, 0),
    (("time", 3), None, 0),
    (("batch", 3, "time"), 0, 2),
    ((3, "time"), None, 1),
]


def taking(*ports: Port, sample_rate: float | None = None) -> Contract:
    return Contract(ports, (), streaming=True, sample_rate=sample_rate)


def whole(path: Path, contract: Contract, chunk: int = 4) -> dict[str, Any]:
    """All chunks joined along time, each held against the contract and against `chunk`."""
    source = open_source(str(path), contract, chunk=chunk)
    chunks = [fit_inputs(contract, feeds) for feeds in source.chunks(0)]
    joined = {}
    for port in contract.inputs:
        axis = port.time_axis
        parts = [feeds[port.name] for feeds in chunks]
        if axis is None:
            joined[port.name] = parts[0]
        else:
            assert all(part.shape[axis] == chunk for part in parts[:-1])
            joined[port.name] = np.concatenate(parts, axis)
            assert source.frames is None or source.frames >= joined[port.name].shape[axis]
    return joined


finite = st.floats(width=32, allow_nan=False)
rows_of_three = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=finite
)


@given(
    rows=rows_of_three,
    layout=st.sampled_from(LAYOUTS),
    chunk=st.integers(1, 25),
    suffix=st.sampled_from(["csv", "headed.csv", "npy", "npz", "laid_out.npy"]),
)
def test_every_format_gives_the_same_frames_in_every_layout(
    rows: Any, layout: Any, chunk: int, suffix: str
) -> None:
    dims, batch_axis, time_axis = layout
    # Two axes in a file are those of an input of two axes, in the input's order.
    assume(dims != (3, "time") or suffix in ("csv", "headed.csv", "laid_out.npy"))
    expected = np.moveaxis(rows, (0, 1), (0, 1) if dims.index("time") < dims.index(3) else (1, 0))
    if batch_axis is not None:
        expected = np.expand_dims(expected, batch_axis)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data.{suffix}")
        write(path, rows, expected)
        found = whole(path, taking(Port("x", "float32", dims, batch_axis, time_axis)), chunk)
    assert np.array_equal(found["x"], expected)


def write(path: Path, rows: Any, laid_out: Any) -> None:
    if path.suffix == ".csv":
        header = "a,b,c\n" if "headed" in path.name else ""
        lines = [",".join(map(str, row)) for row in rows]
        path.write_text(header + "\n".join(lines))
    elif path.suffix == ".npz":
        np.savez(path, x=rows, other=np.zeros(3))
    else:
        np.save(path, laid_out if "laid_out" in path.name else rows)


X = Port("x", "float32", ("batch", "time", 3), 0, 1)
IDS = Port("ids", "int64", ("batch", "time"), 0, 1, num_embeddings=50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5\n", "data.csv, line 2: 2 columns, but input x"),
        ("a,b\n1,2,3\n", "line 1: 2 columns"),
        ("1,2,3\n\n4,oops,6\n", "line 3, column 2: 'oops' is not a number"),
        ("1,2,oops\n", "line 1, column 3: 'oops' is not a number"),
        ("a,b,c\na,b,c\n", "line 2, column 1: 'a'"),
        ("1,2,3\n4,,6\n", "line 2, column 2: '' is not a number"),
        ("1,2,1e39\n", "line 1, column 3: '1e39' is out of the range -3.40282e\\+38 to"),
        ("1;2;3\n", "line 1: 1 columns"),
        (f"1,2,{'9' * 200_000}\n", "line 1: not CSV"),
    ],
)
def test_csv_errors_name_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        whole(path, taking(X))


def test_csv_that_is_not_utf8_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"1,2,3\n1,\xff,3\n")
    with pytest.raises(InputError, match="line 2, column 2"):
        whole(tmp_path / "data.csv", taking(X))


def test_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    text = '\ufeff"left","mid","right"\r\n"1", 2.5 ,-3e-1\r\n\r\nnan,inf,-inf\r\n'
    (tmp_path / "data.csv").write_text(text, encoding="utf-8", newline="")
    found = whole(tmp_path / "data.csv", taking(X))["x"]
    expected = np.array([[[1, 2.5, -0.3], [np.nan, np.inf, -np.inf]]], np.float32)
    assert np.array_equal(found, expected, equal_nan=True)


def test_csv_takes_numbers_that_round_to_the_largest(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("3.4028235e38,-3.4028235e38,1e-50\n")
    largest = np.finfo(np.float32).max
    assert np.array_equal(whole(tmp_path / "data.csv", taking(X))["x"], [[[largest, -largest, 0]]])


@pytest.mark.parametrize(
    ("dtype", "num_embeddings", "good", "bad"),
    [
        ("int64", None, [-(2**63), 2**63 - 1], ["1.5", "2e3", str(2**63), "x"]),
        ("int64", 50, [0, 49], ["-1", "50"]),
        ("uint8", None, [0, 255], ["-1", "256"]),
        ("bool", None, [0, 1], ["2", "True"]),
    ],
)
def test_csv_of_whole_numbers(
    tmp_path: Path, dtype: str, num_embeddings: int | None, good: list[int], bad: list[str]
) -> None:
    port = Port("ids", dtype, ("batch", "time"), 0, 1, num_embeddings=num_embeddings)
    path = tmp_path / "ids.csv"
    path.write_text("\n".join(map(str, good)))
    found = whole(path, taking(port))["ids"]
    assert (found.dtype, found.tolist()) == (np.dtype(dtype), [np.array(good, dtype).tolist()])
    for cell in bad:
        path.write_text(f"id\n1\n{cell}\n")
        with pytest.raises(InputError, match="line 3, column 1"):
            whole(path, taking(port))


def write_wav(path: Path, samples: Any, *, bits: int, rate: int = 16000) -> None:
    """`samples` [frames, channels]: whole numbers, signed, of `bits` bits."""
    width = bits // 8
    unsigned = samples + 128 if width == 1 else samples
    data = b"".join(
        int(value).to_bytes(width, "little", signed=width > 1) for value in unsigned.ravel()
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)


@given(
    bits=st.sampled_from([8, 16, 24, 32]),
    channels=st.integers(1, 3),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_wav_of_any_width_is_scaled_to_one(bits: int, channels: int, chunk: int, seed: int) -> None:
    full = 2 ** (bits - 1)
    samples = np.random.default_rng(seed).integers(-full, full, (30, channels))
    samples[0], samples[1] = -full, full - 1
    port = Port("x", "float32", ("batch", "time", channels), 0, 1)
    with tempfile.TemporaryDirectory() as folder:
        write_wav(Path(folder, "a.wav"), samples, bits=bits)
        found = whole(Path(folder, "a.wav"), taking(port, sample_rate=16000), chunk)["x"]
    assert np.array_equal(found[0], (samples / full).astype(np.float32))


def test_mono_wav_feeds_an_input_without_features(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([[1], [-2], [3]]), bits=16)
    port = Port("x", "float64", ("batch", "time"), 0, 1)
    found = whole(tmp_path / "a.wav", taking(port), 2)["x"]
    assert np.array_equal(found, np.array([[1, -2, 3]]) / 2**15)


def test_wav_errors_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    mono = Port("x", "float32", ("batch", "time", 1), 0, 1)
    write_wav(path, np.zeros((100, 1), int), bits=16)
    with pytest.raises(InputError, match="1 channels, but input x"):
        whole(path, taking(X))
    with pytest.raises(InputError, match="float32 that input ids"):
        whole(path, taking(IDS))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="announces 100 frames, it ends after 75"):
        whole(path, taking(mono))


@pytest.mark.parametrize("content", [b"", b"RIFF", b"text, not audio at all......................"])
def test_what_is_no_wav_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match="not a sound file that can be read") as caught:
        whole(tmp_path / "a.wav", taking(X))
    assert "ffmpeg" in str(caught.value.hint)


@pytest.mark.parametrize(
    "array", [np.arange(5), np.arange(5.0)[:, None], np.arange(5, dtype=">i2")[None, :, None]]
)
def test_numpy_values_are_converted_where_nothing_is_lost(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "a.npy", array)
    port = Port("x", "float32", ("batch", "time", 1), 0, 1)
    found = whole(tmp_path / "a.npy", taking(port), 2)["x"]
    assert np.array_equal(found, np.arange(5, dtype=np.float32).reshape(1, 5, 1))


@pytest.mark.parametrize(
    ("array", "port", "message"),
    [
        (np.array([1.5, 2.0]), IDS, "float64 that input ids"),
        (np.array([300]), Port("b", "uint8", ("time",), None, 0), "int64 that input b"),
        (np.array([2**40]), Port("b", "int32", ("time",), None, 0), "int64 that input b"),
        (np.full((2, 3), 1e39), X, "float64 that input x"),
        (np.full((2, 3), "a"), X, "that input x"),
        (np.zeros((4, 2)), X, r"shape \[4, 2\] for input x"),
        (np.zeros(4), X, r"shape \[4\] for input x"),
        (np.zeros(()), X, r"shape \[\] for input x"),
        (np.zeros((1, 4, 3, 1)), X, "shape"),
        (np.zeros((2, 4, 3)), X, "holds 2 sequences"),
        (np.zeros((1, 4, 2)), X, r"shape \[1, 4, 2\] for input x"),
        (np.zeros((1, 3)), Port("mood", "float32", ("batch", 2), 0), r"shape \[1, 3\] for input"),
        (np.array([{}]), X, "not a sound NumPy file"),
    ],
)
def test_numpy_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, array: Any, port: Port, message: str
) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message) as caught:
        whole(tmp_path / "a.npy", taking(port))
    assert f"{str(tmp_path / 'a.npy')!r}" in str(caught.value)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_numpy_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    np.savez(path, x=np.zeros((9, 3))) if suffix == "npz" else np.save(path, np.zeros((9, 3)))
    sound = path.read_bytes()
    for content in (b"", b"text", sound[:60], sound[: len(sound) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a sound NumPy file"):
            whole(path, taking(X))


def test_several_inputs_come_from_npz_by_name(tmp_path: Path) -> None:
    mood = Port("mood", "float32", ("batch", 2), 0)
    contract = taking(X, IDS, mood)
    x, ids = np.arange(15.0).reshape(5, 3), np.arange(5)
    path = tmp_path / "a.npz"
    np.savez(path, x=x, ids=ids, mood=np.array([1.0, 2.0]))
    found = whole(path, contract, 2)
    assert np.array_equal(found["x"], x[None])
    assert np.array_equal(found["ids"], ids[None])
    assert np.array_equal(found["mood"], [[1, 2]])
    np.savez(path, x=x, ids=ids[:4], mood=np.zeros(2))
    with pytest.raises(InputError, match="disagree in their time axis"):
        whole(path, contract)
    np.savez(path, x=x, mood=np.zeros(2))
    with pytest.raises(InputError, match="lacks the inputs ids"):
        whole(path, contract)
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(InputError, match="3 inputs") as caught:
        whole(tmp_path / "a.npy", contract)
    assert ".npz" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["a.csv", "a.wav", "a.npy"])
def test_no_frames_are_no_chunks(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.wav":
        write_wav(path, np.zeros((0, 3), int), bits=16)
    elif name == "a.npy":
        np.save(path, np.zeros((0, 3)))
    else:
        path.write_text("a,b,c\n")
    assert list(open_source(str(path), taking(X), chunk=4).chunks(0)) == []


def test_an_unknown_kind_of_file_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"none of \.wav, \.csv, \.npy, \.npz"):
        open_source(str(tmp_path / "a.txt"), taking(X), chunk=1)


def test_columns_are_taken_by_their_names(tmp_path: Path) -> None:
    path, mood = tmp_path / "a.csv", Port("mood", "float32", ("batch", 2), 0)
    rows = "2026-01-01,3,7,1.5,30,20,10\n2026-01-02,4,8,2.5,31,21,11\n"
    path.write_text("day,mood0,ids, mood1 ,x2,x1,x0\n" + rows)
    found = whole(path, taking(X, IDS, mood))
    assert np.array_equal(found["x"], [[[10, 20, 30], [11, 21, 31]]])
    assert np.array_equal(found["ids"], [[7, 8]])
    assert np.array_equal(found["mood"], [[4, 2.5]])  # one value for the chunk: its last
    assert np.array_equal(whole(path, taking(X))["x"], found["x"])
    with pytest.raises(InputError, match="hold the values of 2 inputs") as caught:
        whole(path, taking(X, Port("z", "float32", ("time", 2), None, 0)))
    assert caught.value.hint == "Give a first line that names the columns: x0, x1, x2, z0, z1"
    path.write_text("x1,x0,x2,ids\n1,2,3\n")
    with pytest.raises(InputError, match="line 2: 3 columns, but the header names 4"):
        whole(path, taking(X))
    path.write_text("x1,x0,ids,x2\n1,2,7,oops\n")
    with pytest.raises(InputError, match="line 2, column 4: 'oops' is not a number"):
        whole(path, taking(X, IDS))


@given(rows=rows_of_three, chunk=st.integers(1, 25), start=st.integers(0, 25))
def test_json_lines_give_the_same_frames_as_numpy(rows: Any, chunk: int, start: int) -> None:
    ids = np.arange(len(rows)) % 50
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            {"x": x, "n": 0, "ids": i} for x, i in zip(rows.tolist(), ids.tolist(), strict=True)
        ]
        Path(folder, "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
        np.savez(Path(folder, "a.npz"), x=rows, ids=ids)
        found, expected = (
            list(open_source(f"{folder}/a.{kind}", taking(X, IDS), chunk=chunk).chunks(start))
            for kind in ("jsonl", "npz")
        )
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in ("x", "ids"))


def test_json_lines_of_other_shapes(tmp_path: Path) -> None:
    path, square = tmp_path / "a.jsonl", Port("s", "float32", ("time", 2, 2), None, 0)
    mood = Port("mood", "float32", ("batch", 1), 0)
    path.write_text('{"s": [[1, 2], [3, null]], "mood": 5}\n{"s": [5, 6, 7, 8.5]}\n')
    found = whole(path, taking(square, mood))
    expected = np.array([[[1, 2], [3, np.nan]], [[5, 6], [7, 8.5]]])
    assert np.array_equal(found["s"], expected, equal_nan=True)
    assert np.array_equal(found["mood"], [[5]])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("oops", "line 2: not JSON"),
        ("[1, 2, 3]", "line 2: not an object"),
        ("{}", "line 2: no 'x', but the artifact takes x: float32"),
        ('{"x": [1, 2]}', r"line 2: 'x' has shape \[2\], but a frame of input x: .* \[3\]"),
        ('{"x": [[1, 2, 3]]}', r"'x' has shape \[1, 3\]"),
        ('{"x": [1, 2, "a"]}', "line 2: 'x' is .* takes numbers"),
        ('{"x": [1, [2], 3]}', "line 2: 'x' is no array of numbers"),
        ('{"x": [1, {}, 3]}', "line 2: 'x' is no array of numbers"),
        ('{"x": [1, 2, 1e39]}', "line 2: 'x' is .* takes numbers from -3.40282e"),
        ('{"x": [1, 2, 3], "ids": 50}', "line 2: 'ids' is 50, but input ids.* from 0 to 49"),
        ('{"x": [1, 2, 3], "ids": 1.5}', "line 2.*float64 that input ids"),
        ('{"x": [1, 2, 3], "ids": null}', "line 2: 'ids' is None"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"x": [1, 2, ' + "9" * 5000 + "]}", "line 2: not JSON"),
    ],
)
def test_json_errors_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": [1, 2, 3], "ids": 1}\n' + line)
    ports = (X, IDS) if "ids" in line else (X,)
    with pytest.raises(InputError, match=message):
        whole(tmp_path / "a.jsonl", taking(*ports))


def test_inputs_of_several_rates_come_from_npz_in_whole_frames(tmp_path: Path) -> None:
    audio = Port("audio", "float32", ("time",), None, 0)
    slow = Port("slow", "float32", ("slow_time", 2), None, 0, stride=Fraction(4))
    np.savez(tmp_path / "a.npz", audio=np.arange(20.0), slow=np.arange(10.0).reshape(5, 2))
    source = open_source(str(tmp_path / "a.npz"), taking(audio, slow), chunk=8)
    assert [feeds["slow"][:, 0].tolist() for feeds in source.chunks(8)] == [[4, 6], [8]]
    assert [len(feeds["audio"]) for feeds in source.chunks(8)] == [8, 4]
    with pytest.raises(InputError, match="chunk of 6 frames is no whole number") as caught:
        open_source(str(tmp_path / "a.npz"), taking(audio, slow), chunk=6)
    assert "--chunk 4" in str(caught.value.hint)
    (tmp_path / "a.csv").write_text("audio,slow0,slow1\n1,2,3\n")
    with pytest.raises(InputError, match="several rates"):
        open_source(str(tmp_path / "a.csv"), taking(audio, slow), chunk=8)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "npy", "wav"])
def test_a_source_begins_at_any_frame(tmp_path: Path, suffix: str) -> None:
    rows = np.arange(-30, 30).reshape(20, 3)
    path = tmp_path / f"a.{suffix}"
    if suffix == "wav":
        write_wav(path, rows, bits=8)
        rows = rows / 128
    elif suffix == "npy":
        np.save(path, rows)
    else:
        form = {"csv": "{0[0]},{0[1]},{0[2]}", "jsonl": '{{"x": {0}}}'}[suffix]
        path.write_text("".join(form.format(row.tolist()) + "\n" for row in rows))
    source = open_source(str(path), taking(X), chunk=6)
    for start in (0, 6, 18, 20):
        found = [feeds["x"][0] for feeds in source.chunks(start)]
        assert np.array_equal(np.concatenate([*found, rows[:0]]), rows[start:])


@given(
    text=st.text(st.sampled_from('0123456789.,-+e"{}[]:x \nnulNa\r\t\0\ufeffé'), max_size=60)
    | st.lists(st.sampled_from(['{"x": [1, 2, 3]}', "1,2,3", "x0,x1,x2", '{"x": 1}'])).map(
        "\n".join
    ),
    suffix=st.sampled_from(["csv", "jsonl"]),
)
def test_any_text_gives_frames_or_an_error_that_is_ours(text: str, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(InputError):
        path = Path(folder, f"a.{suffix}")
        path.write_text(text, encoding="utf-8")
        for feeds in open_source(str(path), taking(X), chunk=2).chunks(0):
            fit_inputs(taking(X), feeds)
