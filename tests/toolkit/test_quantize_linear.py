"""Linear layers computed with small weights, embeddings gathered as codes; against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from quantizable import save_graph
from rnnx.quantization.change import Given
from rnnx.quantization.levels import LEVELS

Array = npt.NDArray[Any]
IN, OUT = 300, 257
FEW_FRAMES = Given(streaming=True)
COMPUTING = ("int8", "int8-block")
LEAST_SNR_DB = 37.0
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "MatMul": ("MatMul", {}),
    "Gemm": ("Gemm", {}),
    "Gemm, bias": ("Gemm", {"bias": True}),
    "Gemm, transposed": ("Gemm", {"transB": 1, "bias": True}),
}


def save_linear(
    path: Path, operator: str, *, bias: bool = False, width: int = OUT, **attributes: Any
) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(IN, width)).astype(np.float32)
    weights: dict[str, Array] = {"w": array.T if attributes.get("transB") else array}
    if bias:
        weights["b"] = rng.normal(size=width).astype(np.float32)
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    save_graph(path, [node], weights, {"x": ("rows", IN)}, {"y": ("rows", width)})


def converted(path: Path, level: str, given: Given = FEW_FRAMES) -> onnx.ModelProto:
    model = ir.load(path)
    LEVELS[level](model, given)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(model: onnx.ModelProto, **feeds: Array) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def frames(rows: int) -> Array:
    x = np.random.default_rng(1).standard_normal((rows, IN)).astype(np.float32)
    x[1] *= 50
    return x


@pytest.mark.parametrize("level", COMPUTING)
@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_near_float32(tmp_path: Path, layer: str, level: str) -> None:
    operator, options = LAYERS[layer]
    save_linear(tmp_path / "m.onnx", operator, **options)
    model = ir.load(tmp_path / "m.onnx")
    change = LEVELS[level](model, FEW_FRAMES)
    assert change.changed == {operator: 1}
    assert change.invariance == "all"
    small, x = ir.to_proto(model), frames(9)
    assert "MatMulNBits" in operators(small)
    wanted, found = run(onnx.load(tmp_path / "m.onnx"), x=x), run(small, x=x)
    for row, other in zip(wanted, found, strict=True):
        error = np.square(row - other).sum()
        assert 10 * np.log10(np.square(row).sum() / error) > LEAST_SNR_DB


@pytest.mark.parametrize("level", COMPUTING)
def test_no_other_frame_changes_a_bit(tmp_path: Path, level: str) -> None:
    save_linear(tmp_path / "m.onnx", "Gemm", bias=True)
    small, x = converted(tmp_path / "m.onnx", level), frames(40)
    whole = run(small, x=x)
    for start, end in ((0, 1), (1, 2), (2, 9), (9, 40)):
        assert np.array_equal(run(small, x=x[start:end]), whole[start:end])


@pytest.mark.parametrize(
    ("given", "options"),
    [(Given(), {}), (FEW_FRAMES, {"width": 218}), (FEW_FRAMES, {"alpha": 2.0})],
    ids=["many frames at once", "a small weight", "a factor"],
)
def test_what_would_not_gain_is_stored_only(
    tmp_path: Path, given: Given, options: dict[str, Any]
) -> None:
    save_linear(tmp_path / "m.onnx", "Gemm", **options)
    small = converted(tmp_path / "m.onnx", "int8", given)
    assert "MatMulNBits" not in operators(small)
    assert "Cast" in operators(small)


def test_layers_that_share_a_weight_keep_it_once(tmp_path: Path) -> None:
    square = np.random.default_rng(0).normal(size=(384, 384)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    dims = ("rows", 384)
    save_graph(tmp_path / "m.onnx", nodes, {"w": square}, {"x": dims}, {"y": dims})
    small = converted(tmp_path / "m.onnx", "int8")
    assert operators(small).count("MatMulNBits") == 2
    assert small.ByteSize() < 1.1 * square.size


def save_embedding(path: Path, *, tokens: int, axis: int = 0, tied: bool = False) -> None:
    """Rows of very different sizes; `tied`, the table classifies what was looked up, too."""
    rng = np.random.default_rng(0)
    array = (rng.normal(size=(tokens, 64)) * 10.0 ** rng.uniform(-4, 3, (tokens, 1))).astype("f4")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], axis=axis)]
    if tied:
        nodes[0].output[0] = "h"
        nodes += [
            helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["h", "turned"], ["y"]),
        ]
    table = array.T if axis else array
    save_graph(path, nodes, {"table": table}, {}, {"y": ("d0", "d1", "d2")})
    model = onnx.load(path)
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "time"])
    model.graph.input.append(ids)
    onnx.save(model, path)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("level", COMPUTING)
def test_gathered_codes_are_what_int8_store_keeps(tmp_path: Path, level: str, axis: int) -> None:
    save_embedding(tmp_path / "m.onnx", tokens=8192, axis=axis)
    stored, small = (converted(tmp_path / "m.onnx", each) for each in ("int8-store", level))
    ids = np.array([[0, 8191, 5], [77, 4095, 5]])
    assert np.array_equal(run(small, ids=ids), run(stored, ids=ids))
    assert largest_float(tmp_path, stored) == 8192 * 64
    assert largest_float(tmp_path, small) == 8192


def largest_float(folder: Path, model: onnx.ModelProto) -> int:
    """How many numbers the largest float32 constant holds once onnxruntime has loaded the graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    ort.InferenceSession(model.SerializeToString(), options)
    loaded = onnx.load(folder / "loaded.onnx").graph.initializer
    arrays = [numpy_helper.to_array(tensor) for tensor in loaded]
    return max(array.size for array in arrays if array.dtype == np.float32)


@pytest.mark.parametrize("options", [{"tokens": 4000}, {"tokens": 8192, "tied": True}], ids=str)
def test_tables_that_would_not_gain_are_stored_only(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    save_embedding(tmp_path / "m.onnx", **options)
    small = converted(tmp_path / "m.onnx", "int8")
    assert operators(small).count("Gather") == 1
    assert "MatMulNBits" not in operators(small)
