"""What quantized files leave out, and what they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import rnnx
from quantizable import offline_artifact

pytestmark = pytest.mark.usefixtures("short_timing")

SIZE = 32


def plain(path: Path, *nodes: onnx.NodeProto, opset: int = 17, ports: tuple[str, ...] = ()) -> Path:
    """ONNX from elsewhere: `x` [n, 32] to the last node's output, with weights `W` and `b`."""
    rng = np.random.default_rng(0)
    shapes = {"W": (SIZE, SIZE), "b": (SIZE,)}
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    axes = numpy_helper.from_array(np.array([1]), "axes")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])]
    inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n]) for n in ports]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", SIZE])
    graph = helper.make_graph(list(nodes), "g", inputs, [output], [*tensors, axes])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def node(
    operator: str, inputs: str, output: str, name: str = "", **given: object
) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=name, **given)


NETS: dict[str, tuple[list[onnx.NodeProto], dict[str, object]]] = {
    "axes as attributes": (
        [
            node("Unsqueeze", "x", "wide", axes=[1]),
            node("Squeeze", "wide", "back", axes=[1]),
            node("MatMul", "back W", "y"),
        ],
        {"opset": 11},
    ),
    "all axes": (
        [
            node("Unsqueeze", "x axes", "wide"),
            node("Squeeze", "wide", "back"),
            node("MatMul", "back W", "y"),
        ],
        {},
    ),
    "put in and taken out": (
        [
            node("Unsqueeze", "x axes", "wide"),
            node("Squeeze", "wide axes", "back"),
            node("MatMul", "back W", "y"),
        ],
        {},
    ),
    "at the output": (
        [
            node("MatMul", "x W", "1"),
            node("Unsqueeze", "1 axes", "0"),
            node("Squeeze", "0 axes", "y"),
        ],
        {},
    ),
    "names like ours": ([node("MatMul", "x W", "fc.0", "fc")], {}),
    "no names": ([node("Add", "x b", ".0"), node("MatMul", ".0 W", "y")], {}),
    "a default that can be fed": (
        [node("MatMul", "x W", "product"), node("Add", "product b", "y")],
        {"ports": ("b",)},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_onnx_from_elsewhere_computes_the_same_by_the_same_names(tmp_path: Path, name: str) -> None:
    nodes, options = NETS[name]
    src = plain(tmp_path / "a.onnx", *nodes, **options)  # type: ignore[arg-type]
    report = rnnx.quantize(src, tmp_path / "q.onnx", level="int8-store")
    assert report.worst_snr_db is not None
    assert report.worst_snr_db > 35
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)
    x = np.random.default_rng(1).standard_normal((3, SIZE), np.float32)
    sessions = [ort.InferenceSession(path) for path in (src, tmp_path / "q.onnx")]
    ports = [
        [[port.name for port in ports] for ports in (s.get_inputs(), s.get_outputs())]
        for s in sessions
    ]
    assert ports[0] == ports[1]
    expected, found = (session.run(None, {"x": x})[0] for session in sessions)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_what_tells_something_stays_and_all_else_goes(tmp_path: Path) -> None:
    src = tmp_path / "a.onnx"
    offline_artifact(src, features=8, hidden_size=200)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(src)), src)
    rnnx.quantize(src, tmp_path / "q.onnx", level="int8-store")
    before, after = (onnx.load(tmp_path / name).graph for name in ("a.onnx", "q.onnx"))
    assert before.value_info
    assert not after.value_info
    named = [next(n for n in graph.node if n.op_type == "LSTM") for graph in (before, after)]
    assert named[0].name == named[1].name != ""
    assert named[0].input[1:3] == named[1].input[1:3]
    made = [n for n in after.node if n.op_type in ("Cast", "Mul")]
    assert made
    assert not any(n.name for n in made)
    assert all(len(n.output[0]) < 4 or n.output[0] in named[1].input for n in made)
