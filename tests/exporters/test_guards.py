"""What every export must show: each guard, and the graph it is there for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import rnnx
from exportable import GRU, save_text
from rnnx_exporters import artifact
from rnnx_exporters.guards import guard
from rnnx_exporters.layout import Layout

LAYOUT = Layout((torch.ones(2, 5, 4),), ({0: "batch", 1: "time"},))
LAYER = """
    s = Shape<start=1, end=2>(xt)  one = Constant<value_ints=[1]>()
    three = Constant<value_ints=[3]>()  to = Concat<axis=0>(one, s, three)
    h = ConstantOfShape(to)  w1 = Identity(w)  y = GRU<hidden_size=3>(xt, w1, r, , , h)
"""


@pytest.fixture
def graph(tmp_path: Path) -> ir.Model:
    """One GRU as an export gives it: its weights initializers, its start explicit."""
    path = save_text(
        tmp_path / "m.onnx", "float[batch,time,4] x", "float[time,1,batch,3] y", GRU + LAYER
    )
    model = artifact.load_graph(path)
    node = layer(model)
    for place, letter in ((1, "W"), (2, "R")):
        weight = ir.Value(name=letter, const_value=ir.tensor([[[0.0]]], name=letter))
        model.graph.register_initializer(weight)
        node.replace_input_with(place, weight)
    return model


def layer(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "GRU")


def test_a_right_graph_passes(graph: ir.Model) -> None:
    guard(graph, LAYOUT, layers=1, opset_version=18)
    guard(graph, LAYOUT, layers=2, opset_version=18)  # two equal calls have become one


def freeze(graph: ir.Model) -> None:
    graph.graph.inputs[0].shape = ir.Shape(["batch", 5, 4])


def rename(graph: ir.Model) -> None:
    graph.graph.inputs[0].shape = ir.Shape(["batch", "s77", 4])


def lose_shape(graph: ir.Model) -> None:
    graph.graph.inputs[0].shape = None


def lose_input(graph: ir.Model) -> None:
    graph.graph.inputs.clear()


def lose_layer(graph: ir.Model) -> None:
    layer(graph).op_type = "Unrolled"


def compute_weight(graph: ir.Model) -> None:
    weight = next(node.outputs[0] for node in graph.graph if node.op_type == "Identity")
    layer(graph).replace_input_with(1, weight)


def lose_start(graph: ir.Model) -> None:
    layer(graph).replace_input_with(5, None)


def drop_start(graph: ir.Model) -> None:
    layer(graph).resize_inputs(4)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (freeze, r"axis 1 \('time'\) of input 'x' is frozen at 5"),
        (rename, r"axis 1 \('time'\) of input 'x' is frozen at s77"),
        (lose_shape, r"axis 0 \('batch'\) of input 'x' is frozen"),
        (lose_input, "has 0 inputs for 1 tensors"),
        (lose_layer, "1 recurrent layers became 0 nodes"),
        (compute_weight, "the weight W of .* depends on the inputs"),
        (lose_start, "no explicit initial state"),
        (drop_start, "no explicit initial state"),
    ],
)
def test_a_graph_that_lacks_it_is_refused(
    graph: ir.Model, plant: Callable[[ir.Model], None], message: str
) -> None:
    plant(graph)
    with pytest.raises(rnnx.ExportError, match=message) as caught:
        guard(graph, LAYOUT, layers=1, opset_version=18)
    assert caught.value.hint


def test_more_nodes_than_layers_are_refused(graph: ir.Model) -> None:
    with pytest.raises(rnnx.ExportError, match="0 recurrent layers became 1 nodes"):
        guard(graph, LAYOUT, layers=0, opset_version=18)


def test_lengths_of_a_fixed_number_are_refused_where_the_batch_is_free(graph: ir.Model) -> None:
    int32 = ir.TensorType(ir.DataType.INT32)
    lengths = ir.Value(name="lengths", shape=ir.Shape([2]), type=int32)
    graph.graph.inputs.append(lengths)
    layer(graph).replace_input_with(4, lengths)
    args = (torch.ones(2, 5, 4), torch.ones(2, dtype=torch.int32))
    guard_free = partial(guard, graph, layers=1, opset_version=18)
    with pytest.raises(rnnx.ExportError, match="'lengths' are of 2 sequences, while") as caught:
        guard_free(Layout(args, ({0: "batch", 1: "time"}, {})))
    assert "'lengths': {0: 'batch'}" in str(caught.value.hint)
    lengths.shape = ir.Shape(["batch"])
    guard_free(Layout(args, ({0: "batch", 1: "time"}, {0: "batch"})))


def test_another_opset_is_refused(graph: ir.Model) -> None:
    with pytest.raises(rnnx.ExportError, match="has opset 18, not 20"):
        guard(graph, LAYOUT, layers=1, opset_version=20)
