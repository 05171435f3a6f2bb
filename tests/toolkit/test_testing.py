"""`rnnx.testing`: assertions that hold, and that fail with what a person needs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import faults
import rnnx
from artifacts import gru_artifact
from faults import plant
from networks import NETWORKS
from rnnx.testing import assert_golden, assert_parity

X = np.random.default_rng(0).standard_normal((2, 9, 3)).astype(np.float32)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    gru_artifact(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def shifted(path: Path, amount: float) -> Path:
    """The artifact with `amount` on every bias: a small one moves every output a little."""
    model = onnx.load(path)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "B")
    value = numpy_helper.to_array(bias) + np.float32(amount)
    bias.CopyFrom(numpy_helper.from_array(value, "B"))
    onnx.save(model, path.with_name("shifted.onnx"))
    return path.with_name("shifted.onnx")


# --- parity


def test_an_equal_artifact_gives_the_report(exported: Callable[..., Path]) -> None:
    path = exported("gru", streaming=False)
    report = assert_parity(path, NETWORKS["gru"]()[0], probes=["sequence"], seed=3)
    assert report.passed
    assert report.seed == 3


def test_another_network_fails_with_what_is_off_alone(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    off = tmp_path / "off.onnx"
    plant(exported("lstm", streaming=True), off, faults.scaled("y", 1.01))
    with pytest.raises(AssertionError) as raised:
        assert_parity(off, NETWORKS["lstm"]()[0], probes=["sequence"])
    first, *table = str(raised.value).splitlines()
    assert first == f"{off} is not equal to its model: 1 of 5 rows fail (seed 0)"
    assert [line.split()[0] for line in table[3:4]] == ["y"]
    assert "s000" not in str(raised.value)
    assert table[-1].startswith("NOT EQUAL: 3 comparisons")


# --- golden files


@pytest.mark.parametrize("streaming", [True, False])
def test_the_same_artifact_gives_what_was_stored(tmp_path: Path, streaming: bool) -> None:
    path = tmp_path / "m.onnx"
    gru_artifact(path, streaming=streaming)
    golden = tmp_path / "deep" / "er" / "x.npz"
    assert_golden(path, X, golden, update=True)
    assert_golden(path, X, golden)
    assert_golden(path, {"x": X}, golden, rtol=0, atol=0)
    names = {"inputs_sha256", "result/y", *(["result/s000"] if streaming else [])}
    assert set(np.load(golden)) == names


def test_a_stream_gives_what_its_path_gives(artifact: Path, tmp_path: Path) -> None:
    assert_golden(artifact, X, tmp_path / "x.npz", update=True)
    stream = rnnx.Stream(artifact, batch=2)
    assert_golden(stream, X, tmp_path / "x.npz")
    with pytest.raises(rnnx.StreamError):  # it has been flushed
        assert_golden(stream, X, tmp_path / "x.npz")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=st.floats(1e-3, 1), negative=st.booleans())
def test_what_is_off_is_named_with_its_place_and_need(
    artifact: Path, tmp_path: Path, amount: float, negative: bool
) -> None:
    golden = tmp_path / "x.npz"
    assert_golden(artifact, X, golden, update=True)
    other = shifted(artifact, -amount if negative else amount)
    with pytest.raises(AssertionError) as raised:
        assert_golden(other, X, golden, rtol=0, atol=1e-6)
    text = str(raised.value)
    assert f"not what {golden} holds" in text
    told = re.search(r"y: off by (\S+), atol (\S+) at index \[(\d+), (\d+), (\d+)\]", text)
    assert told is not None
    before, after = (rnnx.Stream(path, batch=2).feed(X) for path in (artifact, other))
    index = tuple(int(place) for place in told.groups()[2:])
    far = np.abs(after.astype(np.float64) - before)
    assert far[index] == far.max()
    assert float(told[1]) == pytest.approx(far.max(), rel=0.06)
    assert_golden(other, X, golden, rtol=0, atol=float(far.max()) * 2)


def test_a_missing_file_says_how_to_make_it(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no golden file .*x\.npz: make it with pytest"):
        assert_golden(artifact, X, tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_other_inputs_are_told_apart_from_another_network(artifact: Path, tmp_path: Path) -> None:
    assert_golden(artifact, X, tmp_path / "x.npz", update=True)
    with pytest.raises(AssertionError, match="made of other inputs"):
        assert_golden(artifact, X + 1e-6, tmp_path / "x.npz")


def test_other_outputs_are_told(artifact: Path, tmp_path: Path) -> None:
    assert_golden(artifact, X, tmp_path / "x.npz", update=True)
    gru_artifact(tmp_path / "offline.onnx", streaming=False)
    with pytest.raises(AssertionError, match="holds y, s000, not y"):
        assert_golden(tmp_path / "offline.onnx", X, tmp_path / "x.npz")
    gru_artifact(tmp_path / "wide.onnx", hidden_size=5)
    with pytest.raises(AssertionError, match=r"y: shape \[2, 9, 5\] instead of \[2, 9, 4\]"):
        assert_golden(tmp_path / "wide.onnx", X, tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no", None])
def test_a_file_of_another_kind_is_refused(
    artifact: Path, tmp_path: Path, content: bytes | None
) -> None:
    golden = tmp_path / "x.npz"
    if content is None:
        np.savez(golden, y=X)
    else:
        golden.write_bytes(content)
    with pytest.raises(rnnx.InputError, match="is no golden file") as raised:
        assert_golden(artifact, X, golden)
    assert "--rnnx-update" in str(raised.value.hint)


def test_inputs_that_do_not_fit_write_nothing(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(rnnx.InputError):
        assert_golden(artifact, X[..., :2], tmp_path / "x.npz", update=True)
    assert not (tmp_path / "x.npz").exists()


def test_the_same_outputs_are_the_same_file(artifact: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        assert_golden(artifact, X, tmp_path / name, update=True)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_golden_files_need_no_torch(artifact: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from rnnx.testing import assert_golden
x = np.ones((2, 5, 3), np.float32)
assert_golden({str(artifact)!r}, x, "x.npz", update=True)
assert_golden({str(artifact)!r}, x, "x.npz")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
