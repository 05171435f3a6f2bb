"""What an installation without extras does: everything but numpy, onnxruntime and click is away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts import gru_artifact
from command_line import Ended, assert_refused, listing
from rnnx.recipes.shipped import HOURS

# What the three need themselves comes with them.
INSTALLED = ("numpy", "onnxruntime", "click", "flatbuffers", "google", "packaging")
PROGRAM = f"""
import sys


class NotInstalled:
    ours = {{"rnnx", "rnnx_exporters", "rnnx_runtime", *{INSTALLED}}}

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        # What sysconfig reads is Python's own, under a name of the platform's.
        standard = package in sys.stdlib_module_names or package.startswith("_sysconfigdata")
        if package not in self.ours and not standard:
            raise ModuleNotFoundError(f"No module named {{package!r}}", name=package)


sys.meta_path.insert(0, NotInstalled())
from rnnx.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gru_artifact(tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    return tmp_path


def bare(folder: Path, *arguments: str) -> Ended:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("inspect", "m.onnx"), "input        x: float32[batch, time, 3]"),
        (("stream", "m.onnx", "--input", "x.npy"), "frame,y0,y1,y2,y3"),
        (("bench", "m.onnx", "--seconds", "0.001"), "model   chunk  batch  median us"),
    ],
)
def test_what_a_device_does(folder: Path, arguments: tuple[str, ...], line: str) -> None:
    ended = bare(folder, *arguments)
    assert ended.code == 0, ended.err
    assert any(printed.startswith(line) for printed in ended.out.splitlines())


def test_what_comes_with_the_package_forecasts(tmp_path: Path) -> None:
    ended = bare(tmp_path, "demo", "stream")
    assert ended.code == 0, ended.err
    forecasts = np.loadtxt(ended.out.splitlines(), delimiter=",", skiprows=1)[:, 1]
    hours = np.loadtxt(HOURS, delimiter=",", skiprows=1)[:, 0]
    # After a day, closer to the next hour than the present one plus yesterday's change is.
    truth, change = hours[25:], hours[24:-1] + hours[1:-24] - hours[:-25]
    network, baseline = np.abs([forecasts[24:-1] - truth, change - truth]).mean(1)
    assert network < 0.9 * baseline


def test_what_comes_with_the_package_writes(tmp_path: Path) -> None:
    written, again, other = (bare(tmp_path, "demo", "write", "--seed", seed) for seed in "112")
    assert written.code == 0, written.err
    assert written.out == again.out != other.out
    words = written.out.split()
    assert sum(word in ("the", "and", "of", "to", "unto") for word in words) > len(words) / 10


def test_what_comes_with_the_package_speaks_json(tmp_path: Path) -> None:
    forecast = json.loads(bare(tmp_path, "demo", "stream", "--json").out.splitlines()[0])
    assert set(forecast) == {"frame", "y"}
    written = json.loads(bare(tmp_path, "demo", "write", "--json").out)
    assert written["text"].startswith("And it came to pass")


def test_what_comes_with_the_package_is_small() -> None:
    assert sum(path.stat().st_size for path in HOURS.parent.iterdir()) < 200 * 1024


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "net.py:build", "-o", "out.onnx"),
        ("check", "m.onnx", "--against", "net.py:build"),
        ("quantize", "m.onnx", "-o", "out.onnx"),
        ("inspect", "m.onnx", "--timeline"),
        ("inspect", "m.onnx", "--picture", "out.png"),
        ("demo", "--output-dir", "out"),
    ],
)
def test_what_needs_an_extra_says_which(folder: Path, arguments: tuple[str, ...]) -> None:
    before = listing(folder)
    ended = bare(folder, *arguments)
    assert_refused(ended, "this needs the package")
    assert "hint: pip install 'rnnx[export]'" in ended.err
    assert listing(folder) == before
