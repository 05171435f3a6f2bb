"""`rnnx.export`: the file it writes, whole or not at all, and the models it refuses."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from exportable import Network, dims, hold, operators, plain_run, torch_run
from rnnx_exporters import streaming

AXES = {"x": {0: "batch", 1: "time"}}


@pytest.mark.parametrize("opset_version", [None, 20])
def test_the_opset_is_the_one_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], opset_version: int | None
) -> None:
    path, module = tmp_path / "m.onnx", nn.GRU(4, 5, batch_first=True)
    rnnx.export(module, (torch.randn(2, 5, 4),), path, opset_version=opset_version)
    assert {o.domain: o.version for o in onnx.load(path).opset_import} == {"": opset_version or 18}
    x = torch.randn(3, 8, 4)
    hold(plain_run(path, x), torch_run(module, x))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("opset_version", [14, 99])
def test_an_impossible_opset_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], opset_version: int
) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(rnnx.ExportError, match=f"has opset 18, not {opset_version}") as caught:
        rnnx.export(nn.GRU(4, 5), (torch.randn(2, 5, 4),), path, opset_version=opset_version)
    assert "leave opset_version out" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stream", [False, True])
def test_the_file_holds_nothing_of_the_source(tmp_path: Path, stream: bool) -> None:
    def compute(p: Any, x: Tensor) -> Any:
        unmistakable_name = p["gru"](x)[0]  # a comment that must not be found
        return unmistakable_name * 2

    path = tmp_path / "m.onnx"
    module = Network(compute, gru=nn.GRU(4, 5, batch_first=True))
    rnnx.export(module, (torch.randn(2, 5, 4),), path, streaming=stream)
    data = path.read_bytes()
    secrets = ("unmistakable", "comment that", Path(__file__).stem, str(Path(__file__).parent))
    marks = ("Traceback", "File ", ".py", "site-packages", "stack_trace", "pkg.", "def ")
    assert [text for text in (*secrets, *marks) if text.encode() in data] == []


def break_off(model: ir.Model, path: Path) -> None:
    Path(path).write_bytes(b"half of a fi")
    raise OSError(28, "No space left on device", str(path))


def refuse_proof(*_: Any) -> None:
    raise rnnx.NotStreamableError("a planted failure of the proof")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("existing", [False, True])
def test_a_write_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, existing: bool
) -> None:
    path = tmp_path / "m.onnx"
    if existing:
        path.write_bytes(b"the file of before")
    monkeypatch.setattr(ir, "save", break_off)
    with pytest.raises(OSError, match="No space left"):
        rnnx.export(nn.GRU(4, 5), (torch.randn(2, 5, 4),), path, streaming=stream)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the file of before"] * existing


def test_a_proof_that_fails_leaves_the_file_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the file of before")
    monkeypatch.setattr(streaming, "prove_streaming", refuse_proof)
    with pytest.raises(rnnx.NotStreamableError, match="planted"):
        rnnx.export(nn.GRU(4, 5), (torch.randn(2, 5, 4),), path, streaming=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "m.onnx": b"the file of before"
    }


@pytest.mark.parametrize(
    ("where", "message"),
    [("missing/m.onnx", "no folder '.*missing'"), (".", "is a folder, not a file")],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, where: str, message: str) -> None:
    unfit = (torch.randn(2, 5, 3),)  # which nothing is told of: the place is looked at first
    with pytest.raises(rnnx.ArtifactError, match=message) as caught:
        rnnx.export(nn.GRU(4, 5), unfit, tmp_path / where)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [(torch.randn(2, 5, 3),), torch.randn(2, 5, 4), ()])
def test_an_example_the_model_does_not_run_on_is_refused(tmp_path: Path, args: Any) -> None:
    with pytest.raises(rnnx.InputError, match="does not run on the example arguments") as caught:
        rnnx.export(nn.GRU(4, 5, batch_first=True), args, tmp_path / "m.onnx")
    assert caught.value.hint


def test_a_model_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    module = Network(lambda p, x: p["gru"](x)[0], gru=nn.GRU(4, 5))
    module.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(rnnx.ExportError, match="cannot be copied") as caught:
        rnnx.export(module, (torch.randn(2, 5, 4),), tmp_path / "m.onnx")
    assert caught.value.hint


def test_a_random_model_is_refused(tmp_path: Path) -> None:
    module = Network(lambda p, x: F.dropout(p["gru"](x)[0], training=True), gru=nn.GRU(4, 5))
    with pytest.raises(rnnx.ExportError, match="differs from the model") as caught:
        rnnx.export(module, (torch.randn(2, 5, 4),), tmp_path / "m.onnx")
    assert "random" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def exported_program(module: nn.Module, *free: int) -> torch.export.ExportedProgram:
    """As torch.export gives it, with the axes `free` free and the others frozen."""
    axes = {axis: torch.export.Dim("bt"[axis]) for axis in free}
    shapes = {"x": dict.fromkeys((0, 1), torch.export.Dim.AUTO) | axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own attributes
        return torch.export.export(module.eval(), (torch.randn(2, 5, 4),), dynamic_shapes=shapes)


def test_an_exported_program_is_taken_with_what_it_froze(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = Network(lambda p, x: p["gru"](x)[0], gru=nn.GRU(4, 6, batch_first=True))
    program = exported_program(module, 0)
    contract = rnnx.export(program, (), path, dynamic_shapes={"x": {0: "batch"}})
    assert [port.dims for port in contract.inputs] == [("batch", 5, 4)]
    assert dims(onnx.load(path).graph.output) == [("batch", 5, 6)]
    x = torch.randn(3, 5, 4)
    hold(plain_run(path, x), torch_run(module, x))
    with pytest.raises(rnnx.ExportError):
        rnnx.export(program, (), path, dynamic_shapes=AXES)


def test_the_contract_says_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    contract = rnnx.export(nn.GRU(4, 5, num_layers=2), (torch.randn(2, 5, 4),), path)
    assert contract.source["model"] == "GRU"
    assert contract.source["torch"] == torch.__version__
    assert contract.checked is not None
    assert 0 <= contract.checked["max_abs_difference"] < 1e-5
    assert contract.operators == Counter(operators(path))
    assert not contract.streaming
