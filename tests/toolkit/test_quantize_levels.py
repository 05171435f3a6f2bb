"""The levels, held against the graphs they come from: onnx and numpy alone read what they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantizable import GATES, offline_artifact, recurrent_weights, save_graph, value
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.rows import quantize_rows
from rnnx_runtime import QuantizationError

Array = npt.NDArray[Any]

# For each operator: the shapes of its inputs, which of them is the weight, its attributes, the
# weight's output axes by the ONNX specification, and the rank of the result.
WEIGHTS: dict[str, tuple[str, list[tuple[int, ...]], int, dict[str, Any], tuple[int, ...], int]] = {
    "MatMul right": ("MatMul", [(4, 24), (24, 40)], 1, {}, (1,), 2),
    "MatMul left": ("MatMul", [(40, 24), (24, 4)], 0, {}, (0,), 2),
    "MatMul stacked": ("MatMul", [(4, 24), (3, 24, 40)], 1, {}, (0, 2), 3),
    "Gemm": ("Gemm", [(4, 24), (24, 40)], 1, {}, (1,), 2),
    "Gemm transB": ("Gemm", [(4, 24), (40, 24)], 1, {"transB": 1}, (0,), 2),
    "Gemm left transA": ("Gemm", [(24, 40), (24, 4)], 0, {"transA": 1}, (1,), 2),
    "Gather": ("Gather", [(40, 24), (2,)], 0, {}, (0,), 2),
    "Gather axis 1": ("Gather", [(24, 40), (2,)], 0, {"axis": -1}, (1,), 2),
    "Conv": ("Conv", [(1, 8, 16), (40, 8, 3)], 1, {}, (0,), 3),
    "ConvTranspose": ("ConvTranspose", [(1, 8, 16), (8, 40, 3)], 1, {}, (1,), 3),
    "RNN W": ("RNN", [(5, 2, 24), (1, 32, 24), (1, 32, 32)], 1, {}, (0, 1), 4),
    "GRU W": ("GRU", [(5, 2, 24), (1, 96, 24), (1, 96, 32)], 1, {}, (0, 1), 4),
    "LSTM R": ("LSTM", [(5, 2, 24), (1, 128, 24), (1, 128, 32)], 2, {}, (0, 1), 4),
}


@given(
    array=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=9),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    data=st.data(),
)
def test_every_row_is_within_half_a_step_of_its_own_scale(
    array: Array, data: st.DataObject
) -> None:
    axes = st.sets(st.integers(0, array.ndim - 1), min_size=1)
    summed = tuple(sorted(data.draw(axes)))
    codes, scale = quantize_rows(array, summed)
    assert codes.dtype == np.int8
    assert scale.dtype == np.float32
    assert np.abs(codes.astype(int)).max() <= 127
    kept = tuple(1 if axis in summed else size for axis, size in enumerate(array.shape))
    assert scale.shape == kept
    error = np.abs(codes * scale.astype(np.float64) - array)
    assert (error <= 0.5001 * scale).all()  # scale and quotient are themselves rounded to float32
    magnitude = np.abs(array).max(axis=summed, keepdims=True)
    assert (scale <= np.maximum(magnitude / 127 * 1.0001, np.finfo(np.float32).tiny)).all()


@pytest.mark.parametrize("case", WEIGHTS)
def test_int8_store_gives_each_output_row_its_own_scale(tmp_path: Path, case: str) -> None:
    array = _uneven(case)
    changed, model = _apply("int8-store", _one_weight(tmp_path, case, array))
    assert changed == {WEIGHTS[case][0]: 1}
    stored = _initializers(model)
    assert stored["weight/int8"].dtype == np.int8
    restored = stored["weight/int8"] * stored["weight/scale"]
    outputs = WEIGHTS[case][4]
    within = tuple(axis for axis in range(array.ndim) if axis not in outputs)
    step = np.abs(array).max(axis=within, keepdims=True) / 127
    assert (np.abs(restored - array) <= 0.5001 * step).all()


@pytest.mark.parametrize("case", WEIGHTS)
def test_fp16_store_keeps_weights_to_float16(tmp_path: Path, case: str) -> None:
    array = _uneven(case)
    changed, model = _apply("fp16-store", _one_weight(tmp_path, case, array))
    assert changed == {WEIGHTS[case][0]: 1}
    np.testing.assert_array_equal(
        _initializers(model)["weight/float16"], array.astype(np.float16), strict=True
    )


@pytest.mark.parametrize("level", ["fp16-store", "int8-store"])
@pytest.mark.parametrize("operator", GATES)
def test_stored_weights_compute_what_the_widened_ones_do(
    tmp_path: Path, level: str, operator: str
) -> None:
    """The graph's own widening, run by onnx's reference, feeds the layer the values we stored."""
    offline_artifact(tmp_path / "m.onnx", operator, features=12, hidden_size=16)
    original = onnx.load(tmp_path / "m.onnx")
    _, model = _apply(level, tmp_path / "m.onnx")
    stored = _initializers(model)
    widened = {
        name: stored[f"{name}/int8"] * stored[f"{name}/scale"]
        if level == "int8-store"
        else stored[f"{name}/float16"].astype(np.float32)
        for name in ("W0", "R0")
    }
    if "B0/wide/float16" in stored:
        widened["B0"] = stored["B0/wide/float16"].astype(np.float32)
    for initializer in original.graph.initializer:
        if initializer.name in widened:
            array = widened[initializer.name]
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
    x = np.random.default_rng(0).normal(size=(7, 2, 12)).astype(np.float32)
    (expected,) = ReferenceEvaluator(original).run(None, {"x": x})
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("level", ["fp16-store", "int8-store"])
@pytest.mark.parametrize("operator", GATES)
def test_onnxruntime_folds_what_is_stored_when_it_loads(
    tmp_path: Path, level: str, operator: str
) -> None:
    """So that a step runs the same operators as before: none is left to widen a weight."""
    offline_artifact(tmp_path / "m.onnx", operator)
    _, model = _apply(level, tmp_path / "m.onnx")
    assert "Cast" in _operators(model)
    assert _optimized_operators(tmp_path, model) == _optimized_operators(
        tmp_path, onnx.load(tmp_path / "m.onnx")
    )


def test_int8_converts_every_lstm_and_stores_the_rest(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx", "LSTM", layers=3, directions=2)
    changed, model = _apply("int8", tmp_path / "m.onnx")
    assert changed == {"LSTM": 3}
    assert _operators(model).count("DynamicQuantizeLSTM") == 3
    assert "LSTM" not in _operators(model)
    assert {imported.domain for imported in model.opset_import} == {"", "com.microsoft"}


@pytest.mark.parametrize("operator", ["RNN", "GRU"])
def test_int8_says_which_recurrent_layers_fall_to_int8_store(tmp_path: Path, operator: str) -> None:
    offline_artifact(tmp_path / "m.onnx", operator)
    model = ir.load(tmp_path / "m.onnx")
    change = LEVELS["int8"](model)
    assert change.changed == {operator: 1}
    assert f"{operator} fell to int8-store" in change.notes[0]


@pytest.mark.parametrize("level", LEVELS)
def test_a_shared_weight_is_stored_once(tmp_path: Path, level: str) -> None:
    offline_artifact(tmp_path / "m.onnx", layers=2, features=32, hidden_size=32, shared=True)
    changed, model = _apply(level, tmp_path / "m.onnx")
    assert changed == {"LSTM": 2}
    nodes = [node for node in model.graph.node if "LSTM" in node.op_type]
    assert nodes[0].input[1:4] == nodes[1].input[1:4]
    count = 4 * 32 * 32 // (2 if level.startswith("int4") else 1)  # two codes in a byte
    whole = [a for a in _initializers(model).values() if a.size == count]
    assert len(whole) == 2  # one W, one R


def test_tied_embeddings_are_seen_through_their_transpose(tmp_path: Path) -> None:
    """Each entry is an embedding's row and the output layer's too."""
    table = _uneven("Gather")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["z"]),
        helper.make_node("Transpose", ["table"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    initializers = {"table": table, "ids": np.array([3, 1])}
    outputs = {"y": ("b", 40), "z": (2, 24)}
    save_graph(tmp_path / "tied.onnx", nodes, initializers, {"x": ("b", 24)}, outputs)
    changed, model = _apply("int8-store", tmp_path / "tied.onnx")
    assert changed == {"Gather": 1, "MatMul": 1}
    assert _initializers(model)["table/scale"].shape == (40, 1)
    untied = onnx.load(tmp_path / "tied.onnx")
    del untied.graph.node[0], untied.graph.output[1]
    onnx.save(untied, tmp_path / "untied.onnx")
    changed, model = _apply("int8-store", tmp_path / "untied.onnx")
    assert changed == {"MatMul": 1}
    assert _initializers(model)["table/scale"].shape == (40, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_weight_that_is_read_as_a_plain_float_too_stays_right(tmp_path: Path, level: str) -> None:
    weights = recurrent_weights("LSTM", 16, 32)
    nodes = [_recurrent("LSTM"), helper.make_node("Mul", ["W", "two"], ["doubled"])]
    initializers = weights | {"two": np.array(2, np.float32)}
    outputs = {"Y": ("t", 1, "b", 32), "doubled": (1, 128, 16)}
    save_graph(tmp_path / "m.onnx", nodes, initializers, {"x": ("t", "b", 16)}, outputs)
    _, model = _apply(level, tmp_path / "m.onnx")
    x = np.zeros((2, 1, 16), np.float32)
    doubled = _session(model).run(["doubled"], {"x": x})[0] / 2
    off, largest = np.abs(doubled - weights["W"]), np.abs(weights["W"]).max(axis=2, keepdims=True)
    if level.startswith("int4"):  # the ends of a block may be cut off, to be nearer in all
        assert 0 < np.square(off).mean() < np.square(largest / 7).mean() / 12
    else:
        assert (off <= 0.5001 * largest / 127).all()


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("level", LEVELS)
def test_weights_in_subgraphs_are_found(tmp_path: Path, level: str, operator: str) -> None:
    """Both branches name their weights alike, as they may."""
    _save_branches(tmp_path / "m.onnx", operator)
    changed, model = _apply(level, tmp_path / "m.onnx")
    assert changed == {operator: 2}
    rng = np.random.default_rng(0)
    for on in (True, False):
        feeds = {"x": rng.normal(size=(9, 2, 16)).astype(np.float32), "on": np.array(on)}
        (expected,) = _session(onnx.load(tmp_path / "m.onnx")).run(None, feeds)
        (found,) = _session(model).run(None, feeds)
        near = 0.1 if level.startswith("int4") else 0.03
        assert 0 < np.linalg.norm(found - expected) < near * np.linalg.norm(expected)


@pytest.mark.parametrize("level", LEVELS)
def test_computed_weights_are_named(tmp_path: Path, level: str) -> None:
    _save_computed(tmp_path / "m.onnx")
    change = LEVELS[level](ir.load(tmp_path / "m.onnx"))
    assert not change.changed
    assert any("LSTM 'hidden'" in note and "not float32 init" in note for note in change.notes)


@pytest.mark.parametrize("level", LEVELS)
def test_small_weights_stay_float32(tmp_path: Path, level: str) -> None:
    offline_artifact(tmp_path / "m.onnx", features=2, hidden_size=2)
    change = LEVELS[level](ir.load(tmp_path / "m.onnx"))
    assert not change.changed
    assert any("2 small weights stay float32" in note for note in change.notes)


@pytest.mark.parametrize("level", LEVELS)
def test_a_weight_that_a_caller_may_override_is_left(tmp_path: Path, level: str) -> None:
    inputs = {"x": ("t", "b", 16), "W": (1, 128, 16), "R": (1, 128, 32)}
    weights = recurrent_weights("LSTM", 16, 32)
    save_graph(tmp_path / "m.onnx", [_recurrent("LSTM")], weights, inputs, {"Y": (1, 1, 1, 32)})
    assert not LEVELS[level](ir.load(tmp_path / "m.onnx")).changed


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights_are_refused(tmp_path: Path, level: str, bad: float) -> None:
    weights = recurrent_weights("LSTM", 16, 32)
    weights["R"][0, 3, 4] = bad
    _save_recurrent(tmp_path / "m.onnx", "LSTM", weights)
    with pytest.raises(QuantizationError, match="weight 'R' holds NaN or infinity"):
        LEVELS[level](ir.load(tmp_path / "m.onnx"))


def test_fp16_store_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    weights = recurrent_weights("GRU", 16, 32)
    weights["W"][0, 0, 0] = 70000
    _save_recurrent(tmp_path / "m.onnx", "GRU", weights)
    with pytest.raises(QuantizationError, match="weight 'W' holds values beyond float16's range"):
        LEVELS["fp16-store"](ir.load(tmp_path / "m.onnx"))


def test_lstm_attributes_and_optional_inputs_survive_int8(tmp_path: Path) -> None:
    """Peepholes, sequence lengths, start values, clip: each shifts inputs or changes the gates."""
    rng = np.random.default_rng(0)
    weights = recurrent_weights("LSTM", 16, 32, directions=2) | {
        "lens": np.array([9, 4], np.int32),
        "h0": rng.normal(size=(2, 2, 32)).astype(np.float32),
        "c0": rng.normal(size=(2, 2, 32)).astype(np.float32),
        "P": rng.normal(size=(2, 96)).astype(np.float32),
    }
    node = helper.make_node(
        "LSTM",
        ["x", "W", "R", "B", "lens", "h0", "c0", "P"],
        ["Y"],
        hidden_size=32,
        direction="bidirectional",
        clip=3.0,
        layout=0,
        activations=["HardSigmoid", "Tanh", "Tanh"] * 2,
        activation_alpha=[0.3, 0.3],
        activation_beta=[0.4, 0.4],
    )
    save_graph(tmp_path / "m.onnx", [node], weights, {"x": ("t", 2, 16)}, {"Y": ("t", 2, 2, 32)})
    changed, model = _apply("int8", tmp_path / "m.onnx")
    assert changed == {"LSTM": 1}
    feeds = {"x": rng.normal(size=(9, 2, 16)).astype(np.float32)}
    (expected,) = _session(onnx.load(tmp_path / "m.onnx")).run(None, feeds)
    (found,) = _session(model).run(None, feeds)
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
    assert not found[4:, :, 1].any()  # beyond the shorter sequence's length


@pytest.mark.parametrize(("largest", "is_half"), [(1.0, True), (1e6, False)])
def test_biases_are_kept_as_float16_where_they_fit(
    tmp_path: Path, largest: float, is_half: bool
) -> None:
    bias = np.linspace(-largest, largest, 300, dtype=np.float32)
    bias[150:] *= 1e-5  # beside the largest these do not matter
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    weight = np.zeros((8, 300), np.float32)
    save_graph(tmp_path / "m.onnx", nodes, {"w": weight, "b": bias}, {"x": (1, 8)}, {"y": (1, 300)})
    _, model = _apply("int8-store", tmp_path / "m.onnx")
    assert ("b/wide/float16" in _initializers(model)) == is_half
    (found,) = _session(model).run(None, {"x": np.zeros((1, 8), np.float32)})
    np.testing.assert_allclose(found[0], bias, rtol=1e-3, atol=1e-4 * largest)


def _apply(level: str, path: Path) -> tuple[dict[str, int], onnx.ModelProto]:
    model = ir.load(path)
    change = LEVELS[level](model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return dict(change.changed), proto


def _initializers(model: onnx.ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _session(model: onnx.ModelProto, **options: str) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    for name, setting in options.items():
        setattr(settings, name, setting)
    return ort.InferenceSession(model.SerializeToString(), settings)


def _optimized_operators(folder: Path, model: onnx.ModelProto) -> list[str]:
    path = folder / "optimized.onnx"
    _session(model, optimized_model_filepath=str(path))
    return sorted(_operators(onnx.load(path)))


def _uneven(case: str) -> Array:
    """Weights whose output rows differ by many orders of magnitude, so that each needs a scale."""
    _, shapes, position, _, outputs, _ = WEIGHTS[case]
    shape = shapes[position]
    rng = np.random.default_rng(0)
    size = [n if axis in outputs else 1 for axis, n in enumerate(shape)]
    return (rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 3, size)).astype(np.float32)


def _one_weight(folder: Path, case: str, weight: Array) -> Path:
    """A graph of one layer whose other inputs are the graph's."""
    operator, shapes, position, attributes, _, rank = WEIGHTS[case]
    if operator in GATES:
        attributes = {"hidden_size": 32}
    names = [f"x{index}" for index in range(len(shapes))]
    inputs = dict(zip(names, shapes, strict=True))
    del inputs[names[position]]
    names[position] = "weight"
    initializers = {"weight": weight}
    if operator == "Gather":
        initializers["x1"] = np.array([0, 1])
        inputs = {}
    node = helper.make_node(operator, names, ["y"], **attributes)
    output = {"y": [f"dim{axis}" for axis in range(rank)]}
    save_graph(folder / "one.onnx", [node], initializers, inputs, output)
    return folder / "one.onnx"


def _recurrent(operator: str, weights: tuple[str, str] = ("W", "R")) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", *weights, "B"], ["Y"], name="hidden", hidden_size=32)


def _save_recurrent(path: Path, operator: str, weights: dict[str, Array]) -> None:
    outputs = {"Y": ("t", 1, "b", 32)}
    save_graph(path, [_recurrent(operator)], weights, {"x": ("t", "b", 16)}, outputs)


def _save_computed(path: Path) -> None:
    """An LSTM whose W depends on an input, and whose R is an input."""
    nodes = [helper.make_node("Mul", ["W", "gain"], ["Wg"]), _recurrent("LSTM", ("Wg", "R"))]
    weights = recurrent_weights("LSTM", 16, 32)
    del weights["R"]
    inputs = {"x": ("t", "b", 16), "gain": (1,), "R": (1, 128, 32)}
    save_graph(path, nodes, weights, inputs, {"Y": ("t", 1, "b", 32)})


def _save_branches(path: Path, operator: str) -> None:
    branches = {}
    for seed, name in enumerate(("then", "else")):
        weights = recurrent_weights(operator, 16, 32, seed=seed)
        branches[f"{name}_branch"] = helper.make_graph(
            [helper.make_node(operator, ["x", "W", "R", "B"], [f"Y{name}"], hidden_size=32)],
            name,
            [],
            [value(f"Y{name}", ["t", 1, "b", 32])],
            [numpy_helper.from_array(array, key) for key, array in weights.items()],
        )
    node = helper.make_node("If", ["on"], ["y"], **branches)
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    outputs = [value("y", ["t", 1, "b", 32])]
    graph = helper.make_graph([node], "g", [value("x", ["t", "b", 16]), on], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
