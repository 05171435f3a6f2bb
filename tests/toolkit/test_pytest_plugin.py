"""The pytest plugin, as a project that uses it runs it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import faults
from artifacts import gru_artifact
from faults import plant

pytest_plugins = ["pytester"]

HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "matplotlib"}
# An environment in which rnnx was installed before it had the plugin does not load it by itself.
INSTALLED = any(entry.name == "rnnx" for entry in entry_points(group="pytest11"))
PLUGIN = ("-W", "error") if INSTALLED else ("-W", "error", "-p", "rnnx.pytest_plugin")

PARITY = """
from networks import NETWORKS


def test_equal(parity):
    report = parity("m.onnx", NETWORKS["gru"]()[0], probes=["sequence"])
    assert report.passed


def test_off(parity):
    parity("off.onnx", NETWORKS["gru"]()[0], probes=["sequence"], seed=2)
"""
GOLDEN = """
import numpy as np

X = np.ones((1, 6, 3), np.float32)


def test_golden(parity):
    parity.golden("m.onnx", X, "golden/m.npz")
"""


def test_the_fixture_holds_an_artifact_against_its_model(
    pytester: pytest.Pytester, exported: Callable[..., Path]
) -> None:
    path = exported("gru", streaming=False)
    (pytester.path / "m.onnx").write_bytes(path.read_bytes())
    plant(path, pytester.path / "off.onnx", faults.scaled("y", 1.01))
    pytester.makepyfile(PARITY)
    result = pytester.runpytest(*PLUGIN, "--junitxml=junit.xml")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * AssertionError: off.onnx is not equal to its model: 1 of * fail (seed 2)",
            "E * y * sequence * FAILED *time step*index*",
            "E * NOT EQUAL: 3 comparisons at rtol 0.0001, atol 1e-05; required atol *",
        ]
    )
    assert "assert_passed" not in result.stdout.str()  # the failure is shown at the user's line
    cases = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    found = {
        str(case.get("name")): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in cases
    }
    assert float(str(found["test_equal"]["m.sequence.y.max_abs"])) < 1e-5
    assert float(str(found["test_off"]["off.sequence.y.required_atol"])) > 1e-5
    assert "m.sequence.y.floor_ratio" in found["test_equal"]


def test_golden_files_are_made_held_and_made_anew(pytester: pytest.Pytester) -> None:
    gru_artifact(pytester.path / "m.onnx")
    folder = pytester.mkdir("suite")
    (folder / "test_golden.py").write_text(GOLDEN)
    missing = pytester.runpytest(*PLUGIN)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["E *there is no golden file *: make it with pytest --rnnx-*"])
    pytester.runpytest(*PLUGIN, "--rnnx-update").assert_outcomes(passed=1)
    assert set(np.load(folder / "golden" / "m.npz")) > {"result/y", "result/s000"}
    pytester.runpytest(*PLUGIN).assert_outcomes(passed=1)

    gru_artifact(pytester.path / "m.onnx", seed=1)
    other = pytester.runpytest(*PLUGIN)
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["E *y: off by *, atol * at index *"])
    pytester.runpytest(*PLUGIN, "--rnnx-update").assert_outcomes(passed=1)
    pytester.runpytest(*PLUGIN).assert_outcomes(passed=1)


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not there")
def test_workers_take_the_option(pytester: pytest.Pytester) -> None:
    gru_artifact(pytester.path / "m.onnx")
    for name in ("test_a.py", "test_b.py"):
        (pytester.path / name).write_text(GOLDEN.replace("m.npz", f"{name}.npz"))
    pytester.runpytest_subprocess(*PLUGIN, "-n", "2", "--rnnx-update").assert_outcomes(passed=2)
    assert len(list((pytester.path / "golden").iterdir())) == 2


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    plugin = "" if INSTALLED else "'-p', 'rnnx.pytest_plugin'"
    code = f"""
import sys, pytest
pytest.main(["--help", {plugin}])
print("LOADED", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    shown, _, loaded = done.stdout.partition("LOADED ")
    assert "--rnnx-update" in shown
    assert "rnnx" in loaded.split()
    assert not set(loaded.split()) & HEAVY
