"""A run that is killed and started again ends as one that was not, to the byte."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts import gru_artifact
from command_line import assert_refused, run
from killing import SIGKILLED, killed_command, moments, run_killed
from lagging import lagging
from rnnx.cli import _run
from rnnx.kept_file import KeptFile
from rnnx.sinks import Sink
from rnnx_runtime import Stream
from rnnx_runtime.snapshot import unpack

Capture = pytest.CaptureFixture[str]
FRAMES = 150


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`gru`, frames of three values; `late`, samples, two outputs of other rates and delays."""
    folder = tmp_path_factory.mktemp("artifacts")
    gru_artifact(folder / "gru.onnx")
    lagging(folder, "apart")
    return {"gru": folder / "gru.onnx", "late": folder / "apart.onnx"}


def values(count: int) -> Any:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (FRAMES, count)).astype(np.float32)


def write_sound(path: Path, channels: int, rate: int, **form: Any) -> list[object]:
    soundfile = pytest.importorskip("soundfile", reason="needs the extra rnnx[audio]")
    soundfile.write(path, values(channels), rate, **form)
    return ["--input", path]


def write_csv(folder: Path) -> list[object]:
    np.savetxt(folder / "a.csv", values(3), delimiter=",", header="x2,x0,x1", comments="")
    return ["--input", folder / "a.csv"]


def write_json(folder: Path) -> list[object]:
    rows = ({"x": row} for row in values(3).tolist())
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["--input", folder / "a.jsonl", "--json"]


def write_npy(folder: Path) -> list[object]:
    np.save(folder / "a.npy", values(3))
    return ["--input", folder / "a.npy", "--rate", 100]


def write_raw(folder: Path) -> list[object]:
    values(3).tofile(folder / "a.raw")
    return ["--input", folder / "a.raw", "--format", "f32le"]


# The artifact, and what writes an input and tells the options.
RUNS: dict[str, tuple[str, Callable[[Path], list[object]]]] = {
    "csv": ("gru", write_csv),
    "jsonl": ("gru", write_json),
    "npy": ("gru", write_npy),
    "raw": ("gru", write_raw),
    "wav": ("late", lambda f: write_sound(f / "a.wav", 1, 8000, subtype="PCM_16")),
    "mixed": ("late", lambda f: write_sound(f / "a.wav", 2, 8000, subtype="FLOAT")),
    "flac": ("late", lambda f: write_sound(f / "a.flac", 1, 8000)),
    "ogg": ("late", lambda f: [*write_sound(f / "a.ogg", 1, 8000), "--json"]),
}


def run_quietly(*arguments: object) -> int:
    with redirect_stderr(io.StringIO()):
        return _run([str(argument) for argument in arguments], debug=False)


@contextmanager
def stopped_after(writes: int, *, written: bool) -> Iterator[None]:
    """Plant a Ctrl-C into the sink, before or after it writes for the last time."""
    count, write = itertools.count(1), Sink.write

    def failing(self: Sink, *arguments: Any, **options: Any) -> None:
        last = next(count) == writes
        if written or not last:
            write(self, *arguments, **options)
        if last:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sink, "write", failing)
        yield


@settings(max_examples=10)
@given(data=st.data())
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_is_stopped_ends_to_the_byte_as_one_that_is_not(
    kind: str, artifacts: dict[str, Path], data: st.DataObject
) -> None:
    name, write = RUNS[kind]
    chunk, every = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 80))
    moment = st.tuples(st.integers(1, FRAMES // chunk + 1), st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        out, state = Path(folder, "out"), Path(folder, "state")
        run_it = ["stream", artifacts[name], *write(Path(folder)), "--chunk", chunk, "-o", out]
        assert run_quietly(*run_it) == 0
        expected = out.read_bytes()
        run_it += ["--checkpoint", state, "--every", every]
        for writes, written in data.draw(st.lists(moment, max_size=4)):
            with stopped_after(writes, written=written):
                ended = run_quietly(*run_it)
            if ended:
                assert ended == 2
                with out.open("ab") as file:
                    file.write(b"12,0.5,-")  # what a power cut may leave
        assert run_quietly(*run_it) == 0
        assert out.read_bytes() == expected


def forgets_what_waits(patch: pytest.MonkeyPatch) -> None:
    memory = Sink.memory
    patch.setattr(Sink, "memory", lambda sink: memory(sink) | {"waiting": {"y": [], "z": []}})


def forgets_the_states(patch: pytest.MonkeyPatch) -> None:
    def position_only(stream: Stream, data: bytes) -> None:
        stream.position = unpack(data).position

    patch.setattr(Stream, "restore", position_only)


def leaves_rows_behind_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeptFile, "__init__", opened_to_append)


def opened_to_append(self: KeptFile, path: str, record: Any = None) -> None:
    self.position, self._digest = 0, hashlib.sha256()
    self._file = open(path, "ab")  # noqa: SIM115, closed as ever


@pytest.mark.parametrize(
    "plant", [forgets_what_waits, forgets_the_states, leaves_rows_behind_the_record]
)
def test_what_a_run_forgets_is_seen_in_its_bytes(
    tmp_path: Path, artifacts: dict[str, Path], plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    np.save(tmp_path / "a.npy", values(1))
    run_it = ["stream", artifacts["late"], "--input", tmp_path / "a.npy", "--chunk", 10]
    assert run_quietly(*run_it, "-o", tmp_path / "whole") == 0
    run_it += ["-o", tmp_path / "out", "--checkpoint", tmp_path / "state", "--every", 20]
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with stopped_after(10, written=True):
            assert run_quietly(*run_it) == 2
        assert run_quietly(*run_it) in (0, 2)
    assert (tmp_path / "out").read_bytes() != (tmp_path / "whole").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name open files")
def test_rows_are_on_the_disk_before_a_checkpoint_tells_of_them(
    tmp_path: Path, artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def note_replace(old: str, new: str) -> None:
        done.append(f"{Path(old).name} becomes {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    np.save(tmp_path / "a.npy", values(3))
    run_it = ["stream", artifacts["gru"], "--input", tmp_path / "a.npy", "--chunk", 50]
    assert run_quietly(*run_it, "-o", tmp_path / "out", "--checkpoint", tmp_path / "s") == 0
    saved = ["sync out", "sync s.new", "s.new becomes s", f"sync {tmp_path.name}"]
    assert done == [f"sync {tmp_path.name}", *saved]


# --- killed


def assert_survives(
    folder: Path, run_it: list[object], *, kills: int, every: int, seed: int
) -> None:
    """Kill runs at random moments, and start them again, until so many were killed."""
    rng, killed = np.random.default_rng(seed), 0
    out, state, whole = folder / "out", folder / "state", folder / "whole"
    assert run_quietly(*run_it, "-o", whole) == 0
    run_it = [*run_it, "-o", out, "--checkpoint", state, "--every", every]
    count = moments(*run_it)
    while killed < kills:
        state.unlink(missing_ok=True)
        while (ended := run_killed(*run_it, moment=int(rng.integers(1, count)))).returncode:
            assert ended.returncode == SIGKILLED, ended.stderr
            killed += 1
        assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".new") == []


def test_a_run_survives_kills_at_any_moment(tmp_path: Path, artifacts: dict[str, Path]) -> None:
    np.save(tmp_path / "a.npy", values(3))
    run_it = ["stream", artifacts["gru"], "--input", tmp_path / "a.npy", "--chunk", 7]
    assert_survives(tmp_path, run_it, kills=8, every=20, seed=0)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["csv", "npy", "mixed", "flac"])
def test_a_run_survives_a_hundred_kills(
    kind: str, tmp_path: Path, artifacts: dict[str, Path]
) -> None:
    name, write = RUNS[kind]
    run_it = ["stream", artifacts[name], *write(tmp_path), "--chunk", 5]
    assert_survives(tmp_path, run_it, kills=25, every=15, seed=len(kind))


def test_what_comes_live_is_fed_on_from_the_frame_that_is_told(
    tmp_path: Path, artifacts: dict[str, Path]
) -> None:
    rows = [",".join(map(str, row)) + "\n" for row in values(3).tolist()]
    (tmp_path / "a.csv").write_text("".join(rows))
    run_it = ["stream", artifacts["gru"], "--chunk", 4, "--input"]
    assert run_quietly(*run_it, tmp_path / "a.csv", "-o", tmp_path / "whole") == 0
    kept = ["-o", tmp_path / "out", "--checkpoint", tmp_path / "state", "--every", 10]
    command = killed_command(*run_it, "-", *kept, moment=3000)
    killed = subprocess.run(command, input="".join(rows), capture_output=True, text=True)
    assert killed.returncode == SIGKILLED
    command = killed_command(*run_it, "-", *kept, moment=0)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = re.match(r"going on with frame (\d+), which the input", process.stderr.readline())
        assert told is not None
        assert 0 < int(told[1]) < FRAMES
        process.communicate("".join(rows[int(told[1]) :]))
    assert process.returncode == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


# --- refused


@pytest.fixture
def stopped(tmp_path: Path, artifacts: dict[str, Path], monkeypatch: Any) -> list[str]:
    """A run over `a.npy` that was stopped after 100 frames, in the current folder."""
    monkeypatch.chdir(tmp_path)
    gru_artifact(tmp_path / "gru.onnx")
    np.save(tmp_path / "a.npy", values(3))
    run_it = ["stream", "gru.onnx", "--input", "a.npy", "--chunk", "10", "-o", "out.csv"]
    run_it += ["--checkpoint", "state.bin", "--every", "50"]
    with stopped_after(12, written=True):
        assert run_quietly(*run_it) == 2
    return run_it


def refuse(capsys: Capture, says: str, *arguments: str) -> None:
    """Exit code 2, and both files are as they were."""
    kept = [Path(name) for name in ("out.csv", "state.bin")]
    before = [path.read_bytes() for path in kept if path.exists()]
    assert_refused(run(capsys, *arguments), says)
    assert [path.read_bytes() for path in kept if path.exists()] == before


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (["--chunk", "5"], "--chunk"),
        (["--json"], "--json"),
        (["--rate", "50"], "the rate"),
        (["--input", "b.npy"], "the input"),
        (["--input", "-"], "the input"),
    ],
)
def test_another_run_is_refused(
    stopped: list[str], capsys: Capture, options: list[str], differs: str
) -> None:
    np.save("b.npy", values(3) + 1)
    refuse(capsys, f"'state.bin' is of another run: {differs}", *stopped, *options)


def test_another_artifact_is_refused(stopped: list[str], capsys: Capture) -> None:
    gru_artifact(Path("gru.onnx"), seed=1)
    refuse(capsys, "is of another run: the artifact differs", *stopped)


def test_a_checkpoint_with_any_byte_changed_is_refused(stopped: list[str], capsys: Capture) -> None:
    sound = Path("state.bin").read_bytes()
    for place in np.random.default_rng(0).integers(0, len(sound), 40).tolist():
        data = bytearray(sound)
        data[place] ^= 1 << place % 8
        Path("state.bin").write_bytes(data)
        refuse(capsys, "is damaged" if place >= 8 else "is not a checkpoint", *stopped)
    for length in (0, 7, 8, 30, len(sound) - 1):
        Path("state.bin").write_bytes(sound[:length])
        refuse(capsys, "'state.bin' is", *stopped)


def test_an_output_that_is_not_what_was_written_is_refused(
    stopped: list[str], capsys: Capture
) -> None:
    written = Path("out.csv").read_bytes()
    Path("out.csv").write_bytes(written[:500])
    refuse(capsys, "'out.csv' has 500 bytes, but ", *stopped)
    Path("out.csv").write_bytes(written.replace(b"3,", b"4,", 1))
    refuse(capsys, "'out.csv' is not what was written", *stopped)
    Path("out.csv").unlink()
    refuse(capsys, "'out.csv' has 0 bytes, but ", *stopped)


def test_a_run_that_has_ended_is_not_run_again(stopped: list[str], capsys: Capture) -> None:
    ended = run(capsys, *stopped)
    assert (ended.code, ended.out) == (0, "")
    assert "going on with frame 100\n150 frames in, 150 rows out" in ended.err
    Path("out.csv").write_text("moved away, perhaps")
    again = run(capsys, *stopped)
    assert again.code == 0
    assert again.err == (
        "this run has ended before: 150 frames in, 150 rows out. Remove state.bin to run it again\n"
    )
    assert Path("out.csv").read_text() == "moved away, perhaps"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "a.npy"], "would overwrite 'a.npy'"),
        (["-o", "state.bin"], "one would be written over another"),
        (["-o", "./state.bin.new"], "one would be written over another"),
        (["--checkpoint", "gru.onnx"], "one would be written over another"),
        (["--checkpoint", "none/state.bin"], "no folder 'none'"),
        (["--realtime", "--rate", "9"], "as fast as it can"),
    ],
)
def test_misuse_of_checkpoints(
    stopped: list[str], capsys: Capture, options: list[str], says: str
) -> None:
    before = Path("a.npy").read_bytes(), Path("gru.onnx").read_bytes()
    refuse(capsys, says, *stopped, *options)
    assert (Path("a.npy").read_bytes(), Path("gru.onnx").read_bytes()) == before


def test_a_checkpoint_needs_a_file_for_the_rows(stopped: list[str], capsys: Capture) -> None:
    without = [word for word in stopped if word not in ("-o", "out.csv")]
    refuse(capsys, "writes its results into a file", *without)
