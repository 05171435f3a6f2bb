"""The code on the page about decoding runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import gru_artifact
from faults import edit_contract
from rnnx import Contract, Port
from rnnx_runtime.contract import METADATA_KEY

PAGE = Path(__file__).parents[2] / "docs/decoding.md"
SHOWN = re.compile(r"^```python\n(.+?)^```", re.MULTILINE | re.DOTALL)


def _speller(path: Path) -> None:
    gru_artifact(path)
    model = onnx.load(path)
    edit_contract(model, lambda record: record.update(labels=["-", "a", "b", "c"], sample_rate=100))
    onnx.save(model, path)


def _writer(path: Path) -> None:
    """Logits of the next id, looked up by the present one; input `x` [batch, time]."""
    table = numpy_helper.from_array(np.eye(6, dtype=np.float32), "table")
    dims = ["batch", "time"]
    x = helper.make_tensor_value_info("x", TensorProto.INT64, dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [*dims, 6])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])], "writer", [x], [y], [table]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    contract = Contract(
        (Port("x", "int64", ("batch", "time"), 0, 1, num_embeddings=6),),
        (Port("y", "float32", ("batch", "time", 6), 0, 1),),
        streaming=True,
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _speller(tmp_path / "letters.onnx")
    _writer(tmp_path / "writer.onnx")
    names: dict[str, Any] = {}
    blocks = SHOWN.findall(PAGE.read_text())
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert re.search(r"^\d\.\d\d s  [abc]$", printed, re.MULTILINE)
    assert "began Span(id=0, start=0, end=10, score=0.9)" in printed
    assert [span[:3] for span in names["segments"]] == [(0, 0, 100)]
    assert [row.tolist() for row in names["found"].tags] == [[0] * 5, [0] * 3]
    assert sum(map(len, names["tags"])) == 5
    assert names["ids"].shape == (4,)
