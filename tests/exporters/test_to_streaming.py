"""`rnnx.to_streaming`: files of any exporter, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import rnnx
from artifacts import gru_artifact
from exportable import hold_chunks, operators

FEATURES = 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
Dims = list[int | str | None]


def foreign_file(
    path: Path,
    operator: str = "LSTM",
    *,
    leading: tuple[int | str | None, int | str | None] = ("time", "batch"),
    opset: int = 18,
    named: bool = True,
    more: list[str] | None = None,
    **attributes: Any,
) -> Path:
    """Two layers as other exporters write them: no start states, no final states, no contract."""
    rng = np.random.default_rng(0)
    nodes, initializers = [], [numpy_helper.from_array(np.array([1]), "axis1")]
    for layer in range(2):
        source, y = ("x" if layer == 0 else "y0"), ("y" if layer else "y0")
        for letter in "WR":
            weight = rng.normal(0, 0.5, (1, GATES[operator] * FEATURES, FEATURES))
            initializers.append(
                numpy_helper.from_array(weight.astype(np.float32), f"{letter}{layer}")
            )
        nodes += [
            helper.make_node(
                operator,
                [source, f"W{layer}", f"R{layer}", *(more or [])],
                [f"Y{layer}"],
                name=f"layer{layer}" if named else "",
                hidden_size=FEATURES,
                **attributes,
            ),
            squeeze(f"Y{layer}", y, opset),
        ]
    inputs = [value("x", [*leading, FEATURES])]
    if more:
        inputs.append(helper.make_tensor_value_info("lens", TensorProto.INT32, [leading[1]]))
    graph = helper.make_graph(
        nodes, "foreign", inputs, [value("y", [*leading, FEATURES])], initializers
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def squeeze(source: str, target: str, opset: int) -> onnx.NodeProto:
    if opset < 13:
        return helper.make_node("Squeeze", [source], [target], axes=[1])
    return helper.make_node("Squeeze", [source, "axis1"], [target])


def value(name: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


@pytest.fixture(scope="module", params=["RNN", "GRU", "LSTM"])
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("foreign")
    src = foreign_file(folder / "src.onnx", request.param)
    rnnx.to_streaming(src, folder / "dst.onnx")
    return src, folder / "dst.onnx"


@settings(max_examples=20)
@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8), batch=st.integers(1, 4))
def test_a_foreign_file_streams_in_any_chunks(
    converted: tuple[Path, Path], chunks: list[int], batch: int
) -> None:
    hold_chunks(*converted, chunks, batch)


@pytest.mark.parametrize("named", [False, True])
def test_states_are_named_after_the_nodes(tmp_path: Path, named: bool) -> None:
    src = foreign_file(tmp_path / "src.onnx", named=named)
    contract = rnnx.to_streaming(src, tmp_path / "dst.onnx")
    modules = ["layer0", "layer0", "layer1", "layer1"] if named else ["LSTM"] * 4
    assert [state.module for state in contract.states] == modules
    assert [state.kind for state in contract.states] == ["h", "c"] * 2
    hold_chunks(src, tmp_path / "dst.onnx")


def test_axes_may_have_other_names(tmp_path: Path) -> None:
    src = foreign_file(tmp_path / "src.onnx", leading=("T", "N"))
    contract = rnnx.to_streaming(src, tmp_path / "dst.onnx", time="T")
    assert [(p.batch_axis, p.time_axis) for p in (*contract.inputs, *contract.outputs)] == [
        (1, 0),
        (1, 0),
    ]
    assert contract.states[0].dims == ("N", FEATURES)
    hold_chunks(src, tmp_path / "dst.onnx")


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    src = foreign_file(tmp_path / "src.onnx", leading=("time", 1))
    contract = rnnx.to_streaming(src, tmp_path / "dst.onnx")
    assert {state.dims for state in contract.states} == {(1, FEATURES)}
    hold_chunks(src, tmp_path / "dst.onnx", batch=1)
    with pytest.raises(rnnx.InputError, match="no batch axis"):
        rnnx.Stream(tmp_path / "dst.onnx", batch=2)


def test_weights_beside_the_graph_come_along(tmp_path: Path) -> None:
    src = foreign_file(tmp_path / "src.onnx")
    (tmp_path / "elsewhere").mkdir()
    dst = tmp_path / "elsewhere" / "dst.onnx"
    model = onnx.load(src)
    onnx.save(model, src, save_as_external_data=True, location="weights.bin", size_threshold=64)
    rnnx.to_streaming(src, dst)
    assert list(dst.parent.iterdir()) == [dst]
    hold_chunks(src, dst)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(rnnx.ArtifactError):
        rnnx.to_streaming(src, tmp_path / "again.onnx")


def test_the_offline_artifact_of_other_code_streams(tmp_path: Path) -> None:
    src, dst = tmp_path / "src.onnx", tmp_path / "dst.onnx"
    gru_artifact(src, streaming=False)
    contract = rnnx.to_streaming(src, dst)
    assert [(s.name, s.dims, s.module) for s in contract.states] == [("s000", ("batch", 4), "gru")]
    hold_chunks(src, dst)


def test_it_equals_the_streaming_export(tmp_path: Path) -> None:
    module, x = nn.LSTM(4, 5, num_layers=2, batch_first=True), torch.randn(2, 9, 4)
    offline, direct, later = (tmp_path / f"{name}.onnx" for name in ("a", "b", "c"))
    rnnx.export(module, (x,), offline)
    first = rnnx.export(module, (x,), direct, streaming=True)
    second = rnnx.to_streaming(offline, later)
    assert (second.inputs, second.outputs, second.states) == (
        first.inputs,
        first.outputs,
        first.states,
    )
    assert operators(later) == operators(direct)
    for part in x.tensor_split((4, 8), 1):
        found, expected = (
            rnnx.Stream(path, batch=2).feed(part.numpy()) for path in (later, direct)
        )
        assert isinstance(found, dict)
        assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_no_torch_is_imported(tmp_path: Path) -> None:
    src = foreign_file(tmp_path / "src.onnx")
    code = "import sys, rnnx; rnnx.to_streaming(*sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, src, tmp_path / "dst.onnx"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    hold_chunks(src, tmp_path / "dst.onnx")


def again(path: Path) -> Path:
    rnnx.to_streaming(foreign_file(path), path)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "fixed-time": (lambda p: foreign_file(p, leading=(7, 1)), "no input has a free axis"),
    "nameless-time": (lambda p: foreign_file(p, leading=(None, 1)), "no input has a free axis"),
    "reverse": (lambda p: foreign_file(p, direction="reverse"), "'layer0' .* it is reverse"),
    "lengths": (lambda p: foreign_file(p, more=["", "lens"]), "the lengths of its sequences"),
    "old": (lambda p: foreign_file(p, opset=12), "has opset 12; streaming needs 13"),
    "streaming-already": (again, "'s000_in' is what a state is named"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stream_is_refused(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    src = make(tmp_path / "src.onnx")
    with pytest.raises(rnnx.NotStreamableError, match=message) as caught:
        rnnx.to_streaming(src, tmp_path / "dst.onnx")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == [src]


def test_no_file_and_no_onnx_are_told_apart(tmp_path: Path) -> None:
    src = tmp_path / "src.onnx"
    with pytest.raises(rnnx.ArtifactError, match="no file at"):
        rnnx.to_streaming(src, tmp_path / "dst.onnx")
    with pytest.raises(rnnx.ArtifactError, match="no folder"):  # told before anything is read
        rnnx.to_streaming(src, tmp_path / "gone" / "dst.onnx")
    src.write_bytes(b"not a protobuf" * 9)
    with pytest.raises(rnnx.ArtifactError, match="is not an ONNX file"):
        rnnx.to_streaming(src, tmp_path / "dst.onnx")
    assert list(tmp_path.iterdir()) == [src]


def test_a_file_may_be_converted_in_place(tmp_path: Path) -> None:
    src, kept = foreign_file(tmp_path / "src.onnx"), foreign_file(tmp_path / "kept.onnx")
    rnnx.to_streaming(src, src)
    hold_chunks(kept, src)
