"""A folder of files: each a sequence of its own, a bad one no end of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts import gru_artifact
from command_line import assert_refused, listing, run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`gru.onnx`, and a folder `data` of three files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    gru_artifact(tmp_path / "gru.onnx")
    Path("data").mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.npy", "b.npy", "a.csv"), start=3):
        rows = rng.standard_normal((number, 3))
        if name.endswith(".csv"):
            np.savetxt(f"data/{name}", rows, delimiter=",")
        else:
            np.save(f"data/{name}", rows)
    return tmp_path


@pytest.mark.parametrize(("flags", "kind"), [([], "csv"), (["--json"], "jsonl")])
def test_each_file_gives_what_it_gives_alone(
    folder: Path, capsys: Capture, flags: list[str], kind: str
) -> None:
    (folder / "data" / "notes.txt").write_text("no data")
    (folder / "data" / ".hidden.csv").write_text("no data")
    (folder / "data" / "more.csv").mkdir()
    ended = run(capsys, "stream", "gru.onnx", "--input", "data", "-o", "out", *flags)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines() == [
        "a.csv: 5 frames in, 5 rows out, delay 0 frames",
        "a.npy: 3 frames in, 3 rows out, delay 0 frames",
        "b.npy: 4 frames in, 4 rows out, delay 0 frames",
    ]
    found = listing(folder / "out")
    assert sorted(found) == [f"{name}.{kind}" for name in ("a.csv", "a.npy", "b.npy")]
    for name in ("a.csv", "a.npy", "b.npy"):
        alone = run(capsys, "stream", "gru.onnx", "--input", f"data/{name}", *flags)
        assert found[f"{name}.{kind}"].decode() == alone.out


def test_a_bad_file_is_told_and_the_others_go_on(folder: Path, capsys: Capture) -> None:
    np.save("data/aa.npy", np.zeros((3, 2)))
    with open("data/a.csv", "a") as file:
        file.write("1,2,oops\n")
    Path("data/a.flac").write_bytes(b"fLaC")
    ended = run(capsys, "stream", "gru.onnx", "--input", "data", "-o", "out")
    assert ended.code == 1
    told = ended.err.splitlines()
    assert told[0].startswith("error: a.csv: data/a.csv, line 6, column 3: 'oops' is not a number")
    assert told[1].startswith("error: a.flac: ")
    assert told[3].startswith("error: aa.npy: 'data/aa.npy' holds an array of shape [3, 2]")
    assert told[3].endswith("(Give one of shape [frames, 3].)")
    assert told[-1] == "3 could not be run: a.csv, a.flac, aa.npy"
    assert sorted(listing(folder / "out")) == ["a.npy.csv", "b.npy.csv"]


def test_what_a_folder_does_not_take(folder: Path, capsys: Capture) -> None:
    before = listing(folder)
    run_it = ("stream", "gru.onnx", "--input")
    assert_refused(run(capsys, *run_it, "data"), "'data' is a folder, whose files are run")
    kept = ("-o", "out", "--checkpoint", "state")
    assert_refused(run(capsys, *run_it, "data", *kept), "'data' is a folder, whose files are run")
    assert_refused(run(capsys, *run_it, "data", "-o", "data"), "would overwrite 'data'")
    assert_refused(run(capsys, *run_it, "data", "-o", "gru.onnx"), "exists: 'gru.onnx'")
    (folder / "empty").mkdir()
    assert_refused(run(capsys, *run_it, "empty", "-o", "out"), "'empty' holds no file of .wav")
    assert listing(folder) == before
