"""An offline graph in words: its ports, their axes, and the ids they take."""

from __future__ import annotations

from pathlib import Path

import pytest

import rnnx
from exportable import save_text
from rnnx_exporters import artifact
from rnnx_exporters.describe import describe


def described(path: Path, inputs: str, body: str, outputs: str = "float[a] y") -> rnnx.Contract:
    return describe(artifact.load_graph(save_text(path, inputs, outputs, body)))


@pytest.mark.parametrize(
    ("inputs", "axes"),
    [
        ("float[batch,time,4] x", (0, 1)),
        ("float[time,batch,4] x", (1, 0)),
        ("float[time,4] x", (None, 0)),
        ("float[N,time,4] x", (0, 1)),
        ("float[4,time,N] x", (2, 1)),
        ("float[2,3] x", (None, None)),
        ("float[N,time,height] x", (None, 1)),
        ("float[height,batch] x", (1, None)),
    ],
)
def test_batch_is_the_axis_of_that_name_or_the_only_other(
    tmp_path: Path, inputs: str, axes: tuple[int | None, int | None]
) -> None:
    port = described(tmp_path / "m.onnx", inputs, "y = Relu(x)").inputs[0]
    assert (port.batch_axis, port.time_axis) == axes


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather(table, x)",
        "i = Cast<to=7>(x)  j = Transpose<perm=[1,0]>(i)  y = Gather(table, j)",
        "one = Constant<value_ints=[2]>()  i = Unsqueeze(x, one)  y = Gather(table, i)",
    ],
)
def test_ids_are_counted_by_the_table_they_look_up(tmp_path: Path, body: str) -> None:
    path, inputs = tmp_path / "m.onnx", "int64[batch,time] x"
    save_text(path, inputs + ", float[11,4] table", "float[a] y", body)
    model = artifact.load_graph(path)
    assert describe(model).inputs[0].num_embeddings == 11


def test_numbers_that_look_nothing_up_have_no_count(tmp_path: Path) -> None:
    contract = described(tmp_path / "m.onnx", "int64[n] x", "y = Cast<to=1>(x)")
    assert contract.inputs[0].num_embeddings is None


def test_what_no_stream_can_carry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rnnx.ExportError, match="'x' is of dtype 'complex64'"):
        described(tmp_path / "m.onnx", "complex64[n] x", "y = Identity(x)", "complex64[n] y")


def test_an_unknown_shape_is_refused(tmp_path: Path) -> None:
    path = save_text(tmp_path / "m.onnx", "float[n] x", "float[n] y", "y = Relu(x)")
    model = artifact.load_graph(path)
    model.graph.outputs[0].shape = None
    with pytest.raises(rnnx.ExportError, match="shape of 'y' is not known") as caught:
        describe(model)
    assert caught.value.hint
