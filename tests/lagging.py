"""Artifacts whose streams hold frames back, in onnx's own text: front ends of audio networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from rnnx_exporters import to_streaming
from rnnx_runtime import Model

Array = npt.NDArray[np.float32]

# inputs, outputs, the graph
GRAPHS = {
    # Frames of 400 samples, 160 apart.
    "frames": (
        "float[batch,1,time] x",
        "float[batch,2,rest] y",
        "y = Conv<strides=[160]>(x, w400)",
    ),
    # A window padded at both ends, scaled by an input without frames; and its last frame.
    "scaled": (
        "float[batch,1,time] x, float[batch,1] gain",
        "float[batch,2,rest] y, float[batch,2] last",
        """c = Conv<strides=[2], pads=[2,2]>(x, w5)
        axis = Constant<value_ints=[2]>()
        g = Unsqueeze(gain, axis)
        y = Mul(c, g)
        i = Constant<value_int=-1>()
        last = Gather<axis=2>(y, i)""",
    ),
    # Two windows of other rates: the last frame of one is due within a step of the other.
    "rates": (
        "float[batch,1,time] x",
        "float[batch,2,rest] y, float[batch,2,time] z",
        "y = Conv<strides=[3], pads=[2,2]>(x, w5)  z = Conv<pads=[2,2]>(x, w5)",
    ),
    # A window that looks ahead, beside an output that comes at once.
    "apart": (
        "float[batch,1,time] x",
        "float[batch,2,rest] y, float[batch,1,time] z",
        "y = Conv<strides=[2], pads=[0,4]>(x, w5)  z = Relu(x)",
    ),
    # Rows of a table, each with the one behind it.
    "ids": (
        "int64[batch,time] ids",
        "float[batch,2,time] y",
        """rows = Gather(table, ids)
        axis = Constant<value_ints=[1]>()
        x = Unsqueeze(rows, axis)
        y = Conv<pads=[0,1]>(x, w2)""",
    ),
}


def lagging(folder: Path, name: str) -> tuple[Path, Model]:
    """The offline file of a graph, and its streaming artifact, opened."""
    inputs, outputs, body = GRAPHS[name]
    head = '<ir_version: 10, opset_import: ["": 18]>'
    lines = body.replace("  ", "\n")
    model = onnx.parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {lines} }}")
    rng = np.random.default_rng(0)
    constants = {f"w{k}": rng.normal(size=(2, 1, k)) / k for k in (2, 5, 400)}
    for key, value in (constants | {"table": np.array([3.0, -1.0, 2.0])}).items():
        if key in body:
            tensor = numpy_helper.from_array(value.astype(np.float32), key)
            model.graph.initializer.append(tensor)
    src, dst = folder / f"{name}.offline.onnx", folder / f"{name}.onnx"
    onnx.save(model, src)
    to_streaming(src, dst)
    return src, Model(dst)


def offline(src: Path, **feeds: npt.NDArray[np.generic]) -> list[Array]:
    """The whole run in plain onnxruntime."""
    session = ort.InferenceSession(src, providers=["CPUExecutionProvider"])
    results: list[Array] = session.run(None, feeds)
    return results
