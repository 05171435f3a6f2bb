"""Files with a contract: their fingerprint, their operators, and how they are read and written."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import rnnx
from artifacts import gru_artifact
from exportable import save_text
from rnnx_exporters import artifact


def changed_weight(path: Path) -> Path:
    """The file with the last bit of one weight changed."""
    model = onnx.load(path)
    weight = next(i for i in model.graph.initializer if i.name == "R")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0] = np.nextafter(array[0, 0, 0], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(array, "R"))
    onnx.save(model, path)
    return path


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    contract = gru_artifact(path)
    before = artifact.seal(artifact.load_graph(path), contract).fingerprint
    after = artifact.seal(artifact.load_graph(changed_weight(path)), contract).fingerprint
    assert len(before) == 64
    assert before != after


def test_the_fingerprint_follows_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    contract = gru_artifact(path)
    model = artifact.load_graph(path)
    before = artifact.seal(model, contract).fingerprint
    next(node for node in model.graph if node.op_type == "GRU").attributes.add(
        ir.AttrInt64("linear_before_reset", 0)
    )
    assert artifact.seal(model, contract).fingerprint != before


def test_the_fingerprint_is_of_the_graph_and_not_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    contract = gru_artifact(path)
    model = artifact.load_graph(path)
    first = artifact.seal(model, contract)
    second = artifact.seal(model, dataclasses.replace(contract, sample_rate=16000.0))
    assert first.fingerprint == second.fingerprint
    artifact.save(model, path)
    assert rnnx.load_contract(path) == second
    assert artifact.seal(artifact.load_graph(path), contract).fingerprint == first.fingerprint


def test_operators_are_counted_in_branches_too(tmp_path: Path) -> None:
    branch = "g () => (float[n] z) { z = Relu(x) }"
    body = (
        f"a = Relu(x)  b = If(flag) <then_branch = {branch}, else_branch = {branch}>  y = Add(a, b)"
    )
    path = save_text(tmp_path / "m.onnx", "float[n] x, bool flag", "float[n] y", body)
    model = artifact.load_graph(path)
    assert artifact.count_operators(model) == {"Relu": 3, "If": 1, "Add": 1}


def test_a_file_is_written_whole_with_the_rights_of_any_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "m.onnx", tmp_path / "plain"
    contract = gru_artifact(path)
    model = artifact.load_graph(path)
    sealed = artifact.seal(model, contract)
    artifact.save(model, path)
    plain.touch()
    assert stat.filemode(path.stat().st_mode) == stat.filemode(plain.stat().st_mode)
    assert rnnx.load_contract(path) == sealed
    assert sorted(tmp_path.iterdir()) == [path, plain]


def test_a_write_that_breaks_off_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    gru_artifact(path)
    before, model = path.read_bytes(), artifact.load_graph(path)

    def break_off(_: ir.Model, beside: Path) -> None:
        beside.write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(ir, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        artifact.save(model, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(rnnx.ArtifactError, match=r"no file at '.*m\.onnx'"):
        artifact.load_graph(path)
    gru_artifact(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(rnnx.ArtifactError, match="is not an ONNX file") as caught:
        artifact.load_graph(path)
    assert caught.value.hint
