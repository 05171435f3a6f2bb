"""Graphs to quantize, made by hand with onnx alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rnnx_runtime import Contract, Port, State
from rnnx_runtime.contract import METADATA_KEY

Array = npt.NDArray[Any]
Dims = Sequence[int | str]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    initializers: Mapping[str, Array],
    inputs: Mapping[str, Dims],
    outputs: Mapping[str, Dims],
    contract: Contract | None = None,
) -> None:
    """Write a graph of float32 inputs and outputs, with its contract where one is given."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, dims) for name, dims in inputs.items()],
        [value(name, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if contract is not None:
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


def value(name: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def recurrent_weights(
    operator: str, features: int, hidden_size: int, *, directions: int = 1, seed: int = 0
) -> dict[str, Array]:
    """W, R and B, float32, uniform as torch starts them."""
    rng = np.random.default_rng(seed)
    rows = GATES[operator] * hidden_size
    bound = hidden_size**-0.5
    shapes = {"W": (rows, features), "R": (rows, hidden_size), "B": (2 * rows,)}
    return {
        name: rng.uniform(-bound, bound, (directions, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def offline_artifact(
    path: Path,
    operator: str = "LSTM",
    *,
    layers: int = 1,
    directions: int = 1,
    features: int = 16,
    hidden_size: int = 32,
    shared: bool = False,
) -> Contract:
    """Stacked layers, `x` [time, batch, features] to `y` [time, batch, directions * hidden_size].

    With `shared`, every layer reads the same W, R and B.
    """
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Array] = {"flat": np.array([0, 0, -1])}
    source = "x"
    for layer in range(layers):
        owner = 0 if shared else layer
        wide = directions * hidden_size
        made = recurrent_weights(
            operator, wide if layer else features, hidden_size, directions=directions, seed=owner
        )
        weights |= {f"{name}{owner}": array for name, array in made.items()}
        result = "y" if layer == layers - 1 else f"y{layer}"
        nodes += _layer(operator, layer, owner, source, result, hidden_size, directions)
        source = result
    dims = {"x": ("time", "batch", features), "y": ("time", "batch", directions * hidden_size)}
    contract = Contract(
        inputs=(Port("x", "float32", dims["x"], 1, 0),),
        outputs=(Port("y", "float32", dims["y"], 1, 0),),
        checked={"worst": 0.0},
    )
    save_graph(path, nodes, weights, {"x": dims["x"]}, {"y": dims["y"]}, contract)
    return contract


def _layer(
    operator: str,
    layer: int,
    owner: int,
    source: str,
    result: str,
    hidden_size: int,
    directions: int,
) -> list[onnx.NodeProto]:
    return [
        helper.make_node(
            operator,
            [source, f"W{owner}", f"R{owner}", f"B{owner}"],
            [f"Y{layer}"],
            name=f"layer{layer}",
            hidden_size=hidden_size,
            direction="bidirectional" if directions == 2 else "forward",
        ),
        helper.make_node("Transpose", [f"Y{layer}"], [f"Yt{layer}"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"Yt{layer}", "flat"], [result]),
    ]


def streaming_lstm(path: Path, *, features: int = 16, hidden_size: int = 32) -> Contract:
    """One LSTM whose h and c are states; `x` and `y` are [batch, time, ...]."""
    weights = recurrent_weights("LSTM", features, hidden_size)
    axes = {"axis0": np.array([0]), "axis1": np.array([1])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["s000_in", "axis0"], ["h0"]),
        helper.make_node("Unsqueeze", ["s001_in", "axis0"], ["c0"]),
        helper.make_node(
            "LSTM",
            ["xt", "W", "R", "B", "", "h0", "c0"],
            ["Y", "Y_h", "Y_c"],
            name="lstm",
            hidden_size=hidden_size,
        ),
        helper.make_node("Squeeze", ["Y", "axis1"], ["yt"]),
        helper.make_node("Transpose", ["yt"], ["y"], perm=[1, 0, 2]),
        helper.make_node("Squeeze", ["Y_h", "axis0"], ["s000_out"]),
        helper.make_node("Squeeze", ["Y_c", "axis0"], ["s001_out"]),
    ]
    state = ("batch", hidden_size)
    x, y = ("batch", "time", features), ("batch", "time", hidden_size)
    contract = Contract(
        inputs=(Port("x", "float32", x, 0, 1),),
        outputs=(Port("y", "float32", y, 0, 1),),
        states=(
            State(
                "s000", "float32", state, kind="h", initial=np.full(hidden_size, 0.25, "float32")
            ),
            State("s001", "float32", state, kind="c"),
        ),
        streaming=True,
    )
    inputs = {"x": x, "s000_in": state, "s001_in": state}
    outputs = {"y": y, "s000_out": state, "s001_out": state}
    save_graph(path, nodes, weights | axes, inputs, outputs, contract)
    return contract
