"""Small artifacts made by hand with onnx alone: an oracle that shares no code with the exporter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rnnx_runtime import Contract, Port, State
from rnnx_runtime.contract import METADATA_KEY


def gru_artifact(
    path: Path, *, features: int = 3, hidden_size: int = 4, seed: int = 0, streaming: bool = True
) -> Contract:
    """One GRU, input `x` [batch, time, features], output `y` [batch, time, hidden_size]."""
    rng = np.random.default_rng(seed)
    shapes = {
        "W": (1, 3 * hidden_size, features),
        "R": (1, 3 * hidden_size, hidden_size),
        "B": (1, 6 * hidden_size),
    }
    weights = {k: rng.normal(0, 0.4, shape).astype(np.float32) for k, shape in shapes.items()}
    axis0 = numpy_helper.from_array(np.array([0]), "axis0")
    axis1 = numpy_helper.from_array(np.array([1]), "axis1")
    initializers = [numpy_helper.from_array(v, k) for k, v in weights.items()] + [axis0, axis1]
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(
            "GRU",
            ["xt", "W", "R", "B", "", "h0" if streaming else ""],
            ["Y", "Y_h"],
            hidden_size=hidden_size,
            linear_before_reset=1,
            name="gru",
        ),
        helper.make_node("Squeeze", ["Y", "axis1"], ["yt"]),
        helper.make_node("Transpose", ["yt"], ["y"], perm=[1, 0, 2]),
    ]
    inputs = [_value("x", ["batch", "time", features])]
    outputs = [_value("y", ["batch", "time", hidden_size])]
    states: tuple[State, ...] = ()
    if streaming:
        nodes.insert(0, helper.make_node("Unsqueeze", ["s000_in", "axis0"], ["h0"]))
        nodes.append(helper.make_node("Squeeze", ["Y_h", "axis0"], ["s000_out"]))
        inputs.append(_value("s000_in", ["batch", hidden_size]))
        outputs.append(_value("s000_out", ["batch", hidden_size]))
        states = (State("s000", "float32", ("batch", hidden_size), module="gru"),)
    contract = Contract(
        inputs=(Port("x", "float32", ("batch", "time", features), 0, 1),),
        outputs=(Port("y", "float32", ("batch", "time", hidden_size), 0, 1),),
        states=states,
        streaming=streaming,
        operators={"GRU": 1, "Transpose": 2},
        fingerprint=f"test-{seed}-{features}-{hidden_size}",
    )
    graph = helper.make_graph(nodes, "gru", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    return contract


def _value(name: str, dims: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
