"""What comes live: stdin and the microphone, until it ends or Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import MAIN, assert_refused, run, run_without_reader
from lagging import lagging
from rnnx.cli.stream import _FORMATS
from rnnx.sources import FORMATS
from running_sums import frames, running_sum

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def adder(tmp_path: Path) -> Path:
    running_sum(tmp_path / "adder.onnx", dims=("batch", "time", 1), sample_rate=100.0)
    return tmp_path / "adder.onnx"


def test_the_command_knows_the_formats_of_the_sources() -> None:
    assert _FORMATS == FORMATS


class Microphone:
    """A stand-in for sounddevice: it plays samples, then presses Ctrl-C and waits for ever."""

    PortAudioError = RuntimeError

    def __init__(self, samples: Any, *, lose: int = 0, takes: float = 100.0) -> None:
        self.samples, self.lose, self.takes = samples, lose, takes
        self.opened: list[Any] = []

    def check_input_settings(self, **settings: Any) -> None:
        if settings["samplerate"] != self.takes:
            raise RuntimeError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, **settings: Any) -> Microphone:  # noqa: N802, sounddevice's name
        self.opened.append(settings)
        return self

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.append("closed")

    def read(self, count: int) -> tuple[Any, bool]:
        if len(self.samples) < count:
            os.kill(os.getpid(), signal.SIGINT)
        data, self.samples = self.samples[:count], self.samples[count:]
        self.lose -= 1
        return data, self.lose >= 0


@pytest.fixture(autouse=True)
def handler() -> Any:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_the_microphone_is_heard_until_ctrl_c(
    tmp_path: Path, adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    microphone = Microphone(frames(25, 1))
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    ended = run(capsys, "stream", adder, "--input", "mic", "--chunk", 10, "-o", tmp_path / "y")
    assert ended.code == 0
    assert ended.err == "20 frames in, 20 rows out, delay 0 frames\n"
    found = np.loadtxt(tmp_path / "y", delimiter=",", skiprows=1)
    assert np.array_equal(found[:, 2], np.cumsum(frames(25, 1))[:20])
    assert np.array_equal(found[:, 1], np.round(np.arange(20) / 100, 9))
    settings = {"samplerate": 100.0, "channels": 1, "dtype": "float32"}
    assert microphone.opened == [settings, "closed"]


def test_the_tail_is_written_after_ctrl_c(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = lagging(tmp_path, "apart")
    samples = frames(24, 1)
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone(samples))
    ended = run(capsys, "stream", model.path, "--input", "mic", "--rate", 100, "--chunk", 8)
    np.save(tmp_path / "x.npy", samples.T[None])
    whole = run(capsys, "stream", model.path, "--input", tmp_path / "x.npy", "--rate", 100)
    assert (ended.code, whole.code) == (0, 0)
    assert [line.split(",")[:2] for line in ended.out.splitlines()] == [
        line.split(",")[:2] for line in whole.out.splitlines()
    ]
    found, expected = (
        np.genfromtxt(out.splitlines(), delimiter=",", skip_header=1)
        for out in (ended.out, whole.out)
    )
    assert np.allclose(found, expected, equal_nan=True)


def test_a_microphone_of_another_rate_is_resampled_and_lost_frames_are_told(
    adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    soxr = pytest.importorskip("soxr", reason="needs the extra rnnx[audio]")
    samples = np.random.default_rng(0).uniform(-1, 1, (600, 1)).astype(np.float32)
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone(samples, lose=3, takes=200.0))
    ended = run(capsys, "stream", adder, "--input", "mic", "--rate", 200, "--chunk", 10)
    assert ended.code == 0
    assert "resampled from 200 to 100 frames a second\n" in ended.err
    assert "the microphone lost frames 3 times" in ended.err
    found = np.loadtxt(ended.out.splitlines(), delimiter=",", skiprows=1)[:, 2]
    expected = np.cumsum(soxr.resample(samples, 200, 100))
    assert np.allclose(found, expected, atol=1e-4)  # sums of float32, added up in other orders


def test_a_microphone_that_cannot_be_opened(
    tmp_path: Path, adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("stream", adder, "--input", "mic")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    without = run(capsys, *options)
    assert_refused(without, "recording needs the package 'sounddevice', which is not installed")
    assert "hint: pip install 'rnnx[audio]'" in without.err
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone([], takes=48000.0))
    assert_refused(run(capsys, *options), "1 channels at 100 frames a second: Invalid sample rate")
    running_sum(tmp_path / "adder.onnx", dims=("batch", "time", 1))
    assert_refused(run(capsys, *options), "does not tell how many frames a second")


def test_a_machine_without_portaudio_is_told_what_to_install(
    tmp_path: Path, adder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    ended = run(capsys, "stream", adder, "--input", "mic")
    assert_refused(ended, "sounddevice cannot be loaded: PortAudio library not found")
    assert "apt install libportaudio2" in ended.err


def test_ctrl_c_ends_stdin_as_its_end_does(adder: Path, tmp_path: Path) -> None:
    command = [*MAIN, "stream", str(adder), "--input", "-", "--json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("1\n2\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read() == "2 frames in, 2 rows out, delay 0 frames\n"
    assert process.returncode == 0
    assert lines[1] == '{"frame": 1, "seconds": 0.01, "y": [3.0]}\n'


def test_raw_samples_are_answered_as_they_come(tmp_path: Path) -> None:
    running_sum(tmp_path / "adder.onnx", dims=("batch", "time", 1))
    options = ["--input", "-", "--format", "s16le", "--chunk", "2", "--rate", "16000"]
    with subprocess.Popen(
        [*MAIN, "stream", str(tmp_path / "adder.onnx"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"frame,seconds,y0\n"
        for first in range(0, 6, 2):
            process.stdin.write(np.full(2, 2**14, "<i2").tobytes())
            process.stdin.flush()  # the pipe stays open: the answer must not wait for its end
            found = [process.stdout.readline().split(b",") for _ in range(2)]
            assert [float(row[1]) for row in found] == [first / 16000, (first + 1) / 16000]
            assert [float(row[2]) for row in found] == [(first + 1) / 2, (first + 2) / 2]
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_a_reader_that_has_gone_ends_it_quietly(tmp_path: Path, adder: Path) -> None:
    np.save(tmp_path / "x.npy", frames(5000, 1))
    ended = run_without_reader("stream", adder, "--input", tmp_path / "x.npy")
    assert ended.code == 141
    assert "Traceback" not in ended.err
    assert "error" not in ended.err
