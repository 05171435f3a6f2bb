"""The options of `rnnx check`: what it is held against, over which data, by which figure, where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faults
import rnnx
from command_line import assert_refused, listing, run
from faults import plant
from networks import NETWORKS

Capture = pytest.CaptureFixture[str]

NET = """
from networks import NETWORKS


def right():
    return NETWORKS["lstm"]()
"""

SCORE = """
def accuracy(outputs, inputs):
    return (outputs["y"].argmax(-1) == inputs["label"]).mean()


def make(level):
    return accuracy


def broken(outputs, inputs):
    return outputs["gone"]


pi = 3.14
"""

AGAINST = ("--against", "net.py:right", "--probe", "sequence")


@pytest.fixture(autouse=True)
def folder(workplace: Path, exported: Callable[..., Path]) -> Path:
    """`m.onnx` of `net.py:right`, `off.onnx` with a fault in layer 1, `d.npz`, `score.py`."""
    (workplace / "net.py").write_text(NET)
    (workplace / "score.py").write_text(SCORE)
    (workplace / "m.onnx").write_bytes(exported("lstm", streaming=True).read_bytes())
    (workplace / "whole.onnx").write_bytes(exported("lstm", streaming=False).read_bytes())
    plant(workplace / "m.onnx", workplace / "off.onnx", faults.roll_gates(1))
    x = np.random.default_rng(0).standard_normal((2, 9, 4)).astype(np.float32)
    label = rnnx.Model("whole.onnx").run(x).argmax(-1)  # type: ignore[union-attr]
    np.savez(workplace / "d.npz", x=x, label=label)
    np.save(workplace / "x.npy", x)
    return workplace


def found(capsys: Capture, *arguments: object) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run(capsys, "check", *arguments, "--json").out)
    return record


def test_another_artifact(capsys: Capture) -> None:
    arguments = ("--against", "whole.onnx", "--probe", "sequence", "--probe", "chunked")
    assert run(capsys, "check", "m.onnx", *arguments).code == 0
    ended = run(capsys, "check", "off.onnx", *arguments)
    assert ended.code == 1
    assert ended.err == "checking off.onnx against whole.onnx\n"


def test_probes_by_name(capsys: Capture) -> None:
    record = found(capsys, "m.onnx", "--against", "net.py:right", "--probe", "chunked")
    assert {finding["probe"] for finding in record["findings"]} == {"chunked"}


def test_a_tolerance_for_one_output_and_one_for_the_others(capsys: Capture) -> None:
    record = found(capsys, "m.onnx", *AGAINST, "--atol", "1e-3", "--atol", "s001=0.5")
    atols = {finding["output"]: finding["atol"] for finding in record["findings"]}
    assert atols == {"y": 1e-3, "s000": 1e-3, "s001": 0.5, "s002": 1e-3, "s003": 1e-3}
    record = found(capsys, "m.onnx", *AGAINST, "--atol", "y=0.5")
    assert {f["output"]: f["atol"] for f in record["findings"]} == {
        "y": 0.5,
        **{f"s00{number}": 1e-5 for number in range(4)},
    }


def test_a_tolerance_of_one_output_saves_only_that(capsys: Capture) -> None:
    plant(Path("m.onnx"), Path("y.onnx"), faults.scaled("y", 1.01))
    assert run(capsys, "check", "y.onnx", *AGAINST, "--atol", "s000=1").code == 1
    assert run(capsys, "check", "y.onnx", *AGAINST, "--atol", "y=1").code == 0


def test_quality_in_place_of_the_tolerance(capsys: Capture) -> None:
    plant(Path("m.onnx"), Path("y.onnx"), faults.scaled("y", 1.01))  # 40 dB
    assert run(capsys, "check", "y.onnx", *AGAINST).code == 1
    assert run(capsys, "check", "y.onnx", *AGAINST, "--snr", "39").code == 0
    assert run(capsys, "check", "y.onnx", *AGAINST, "--snr", "41").code == 1
    assert run(capsys, "check", "y.onnx", *AGAINST, "--snr", "39", "--agreement", "1").code == 0


def test_chunk_and_batch_as_deployed(capsys: Capture) -> None:
    arguments = ("--against", "net.py:right", "--probe", "chunked", "--chunk", 5, "--batch", 4)
    runs = [finding["run"] for finding in found(capsys, "m.onnx", *arguments)["findings"]]
    assert 5 in {run["chunk"] for run in runs}
    assert {run["batch"] for run in runs} == {4}


def test_inputs_of_ones_own(capsys: Capture) -> None:
    arguments = ("--against", "net.py:right", "--probe", "recorded")
    arguments = (*arguments, "--inputs", "x.npy", "--inputs", "x.npy")
    record = found(capsys, "m.onnx", *arguments)
    assert record["passed"]
    assert {finding["run"]["recording"] for finding in record["findings"]} == {0, 1}


def test_a_metric_of_ones_own(capsys: Capture) -> None:
    arguments = ("--against", "net.py:right", "--probe", "metric", "--inputs", "d.npz")
    arguments = (*arguments, "--metric", "score.py:accuracy", "--metric-drop", "0.5%")
    assert run(capsys, "check", "m.onnx", *arguments).code == 0
    ended = run(capsys, "check", "off.onnx", *arguments, "--metric-floor", "0.9")
    assert ended.code == 1
    assert "the reference 1; asked for: at least 0.9, worse than the reference by 0.5% at most" in (
        ended.out
    )


def test_where_it_breaks(capsys: Capture) -> None:
    ended = run(capsys, "check", "off.onnx", *AGAINST, "--locate")
    assert ended.code == 1
    assert "rnn.l1 (module 'rnn', layer 1) is the first block out of tolerance" in ended.out
    assert found(capsys, "off.onnx", *AGAINST, "--locate")["location"]["first"] == "rnn.l1"
    report = rnnx.check("off.onnx", NETWORKS["lstm"]()[0], probes=["sequence"], locate=True)
    assert report.location is not None
    assert report.location.to_text() in ended.out


REFUSED = [
    (["--against", "gone.onnx"], "no file at 'gone.onnx'"),
    (["--against", "whole.onnx", "--weights", "w.pt"], "'whole.onnx' holds its own weights"),
    (["--against", "whole.onnx", "--locate"], "only a torch model tells"),
    ([*AGAINST, "--probe", "luck"], "there is no probe 'luck'"),
    ([*AGAINST, "--atol", "z=1"], "there is no output 'z'"),
    ([*AGAINST, "--atol", "y="], "'' is not a valid float; give 1e-5, or y=1e-5"),
    ([*AGAINST, "--atol", "y=nan"], "a tolerance must be a number"),
    ([*AGAINST, "--agreement", "2"], "not in the range 0<=x<=1"),
    ([*AGAINST, "--chunk", "0"], "not in the range x>=1"),
    ([*AGAINST, "--batch", "0"], "not in the range x>=1"),
    ([*AGAINST, "--inputs", "gone.npz"], "no file at 'gone.npz'"),
    ([*AGAINST, "--inputs", "d.npz"], "unknown: ['label']"),
    ([*AGAINST, "--metric-drop", "1%"], "limits of a --metric"),
    ([*AGAINST, "--metric", "score.py:accuracy"], "a metric without a limit proves nothing"),
    (
        [*AGAINST, "--metric", "score.py:accuracy", "--metric-drop", "0"],
        "the metric 'accuracy' has no sequences",
    ),
    (
        [*AGAINST, "--metric", "score.py:accuracy", "--metric-drop", "much", "--inputs", "d.npz"],
        "a drop one of 0 or more",
    ),
    ([*AGAINST, "--metric", "score.py", "--metric-drop", "0"], "'score.py' names no function"),
    ([*AGAINST, "--metric", "score.py:pi", "--metric-drop", "0"], "names no function"),
    ([*AGAINST, "--metric", "score.py:make(1)", "--metric-drop", "0"], "names no function"),
    ([*AGAINST, "--metric", "score.py:gone", "--metric-drop", "0"], "has no 'gone'"),
    (
        [
            *("--against", "net.py:right", "--probe", "metric", "--inputs", "d.npz"),
            *("--metric", "score.py:broken", "--metric-drop", "0"),
        ],
        "the metric 'broken' raised KeyError: 'gone'",
    ),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_misuse_ends_with_2_and_writes_nothing(
    capsys: Capture, folder: Path, arguments: list[str], says: str
) -> None:
    before = listing(folder)
    assert_refused(run(capsys, "check", "m.onnx", *arguments), says)
    assert listing(folder) == before


def test_a_folder_is_held_against_a_folder(capsys: Capture, folder: Path) -> None:
    (folder / "pair").mkdir()
    ended = run(capsys, "check", "pair", "--against", "net.py:right")
    assert_refused(ended, "'pair' is a folder: an encoder-decoder is held against another folder")
    assert_refused(run(capsys, "check", "pair", "--against", "pair"), "no encoder-decoder")
