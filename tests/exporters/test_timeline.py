"""Time followed through graphs: the facts of single wires, and chains of operators by chance."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import rnnx
from exportable import GRU, SIZES, hold_chunks, save_text
from rnnx_exporters.clock import Clock
from rnnx_exporters.timeline import Fact, Frames, Last, Length, follow
from rnnx_runtime.count import Count

X = "float[batch,time,4] x"
HALF = Count().then(divisor=2)

FACTS: dict[str, tuple[str, Fact]] = {
    "sizes": ("y = Shape(x)", Length((False, True, False), Clock())),
    "the-last-size": ("y = Shape<start=-1>(x)", None),
    "the-last-state": (GRU + "z, y = GRU<hidden_size=3>(xt, w, r)", Last()),
    "frames-of-a-layer": (
        GRU + "y = GRU<hidden_size=3>(xt, w, r)",
        Frames(0, Clock().remembering()),
    ),
    "every-second-frame": (
        "a = Constant<value_ints=[1]>()  b = Constant<value_ints=[9223372036854775807]>()"
        "  t = Constant<value_ints=[2]>()  y = Slice(x, a, b, a, t)",
        Frames(1, Clock(Fraction(2), HALF, HALF, Fraction(1), Fraction(1))),
    ),
    "the-last-frame": ("i = Constant<value_int=-1>()  y = Gather<axis=1>(x, i)", Last()),
    "one-frame-long": (
        "m = Constant<value_ints=[-1]>()  b = Constant<value_ints=[9223372036854775807]>()"
        "  a = Constant<value_ints=[1]>()  y = Slice(x, m, b, a)",
        Last(),
    ),
    "batch-zeros": (
        "s = Shape<start=0, end=1>(x)  y = ConstantOfShape(s)",
        None,
    ),
    "frame-of-zeros": (SIZES + "y = ConstantOfShape(s)", Frames(1)),
}


@pytest.mark.parametrize("name", FACTS)
def test_the_fact_of_a_wire(tmp_path: Path, name: str) -> None:
    body, expected = FACTS[name]
    path = save_text(
        tmp_path / "g.onnx", X, "float[a] y" if name != "sizes" else "int64[3] y", body
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load(path)))
    assert follow(model, {"x": Frames(1)}).facts[model.graph.outputs[0]] == expected


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[Any]]:
    """A chain of operators over `x` [batch, time, 2, 3], and the axes of what it gives.

    No chain forgets what is in its frames, as a softmax over one element would.
    """
    dims: list[Any] = ["batch", "time", 2, 3]
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for count in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from([transpose, unsqueeze, squeeze, reduce, pick, pad, add_up]))
        made = step(draw, dims)
        if made is None:
            continue
        operator, parameters, attributes, dims = made
        names = [f"c{count}_{place}" for place in range(len(parameters))]
        constants += map(numpy_helper.from_array, map(np.array, parameters), names)
        source = nodes[-1].output[0] if nodes else "x"
        nodes.append(helper.make_node(operator, [source, *names], [f"v{count}"], **attributes))
    nodes.append(helper.make_node("Relu", [nodes[-1].output[0] if nodes else "x"], ["y"]))
    return nodes, constants, dims


Step = tuple[str, list[Any], dict[str, Any], list[Any]]


def features(dims: list[Any]) -> list[int]:
    return [axis for axis, dim in enumerate(dims) if isinstance(dim, int)]


def transpose(draw: st.DrawFn, dims: list[Any]) -> Step:
    perm = draw(st.permutations(range(len(dims))))
    return "Transpose", [], {"perm": perm}, [dims[axis] for axis in perm]


def unsqueeze(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    if len(dims) > 5:
        return None
    axis = draw(st.integers(0, len(dims)))
    written = axis - draw(st.sampled_from([0, len(dims) + 1]))
    return "Unsqueeze", [[written]], {}, [*dims[:axis], 1, *dims[axis:]]


def squeeze(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    ones = [axis for axis, dim in enumerate(dims) if dim == 1]
    if not ones:
        return None
    gone = draw(st.sets(st.sampled_from(ones), min_size=1))
    kept = [dim for axis, dim in enumerate(dims) if axis not in gone]
    return "Squeeze", [sorted(gone)], {}, kept


def reduce(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    if not features(dims):
        return None
    axis, keep = draw(st.sampled_from(features(dims))), draw(st.booleans())
    rest = [*dims[:axis], *([1] if keep else []), *dims[axis + 1 :]]
    return "ReduceMean", [[axis]], {"keepdims": int(keep)}, rest


def pick(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    if not features(dims):
        return None
    axis = draw(st.sampled_from(features(dims)))
    shape = draw(st.sampled_from([(), (1,), (2,), (1, 2)]))
    return (
        "Gather",
        [np.full(shape, dims[axis] // 2)],  # the middle is no padding
        {"axis": axis},
        [*dims[:axis], *shape, *dims[axis + 1 :]],
    )


def pad(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    if not features(dims):
        return None
    axis = draw(st.sampled_from(features(dims)))
    amounts = np.zeros((2, len(dims)), np.int64)
    amounts[:, axis] = 1
    return "Pad", [amounts.reshape(-1)], {}, [*dims[:axis], dims[axis] + 2, *dims[axis + 1 :]]


def add_up(draw: st.DrawFn, dims: list[Any]) -> Step | None:
    if not features(dims):
        return None
    return "CumSum", [draw(st.sampled_from(features(dims)))], {}, dims


@given(chain=chains())
def test_time_is_followed_through_any_chain(
    tmp_path_factory: pytest.TempPathFactory,
    chain: tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[Any]],
) -> None:
    nodes, constants, dims = chain
    folder = tmp_path_factory.mktemp("chain")
    src, dst = folder / "src.onnx", folder / "dst.onnx"
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "time", 2, 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), src)
    contract = rnnx.to_streaming(src, dst)
    assert contract.outputs[0].time_axis == dims.index("time")
    hold_chunks(src, dst)
