"""Leaves out of a quantized graph what only tells of it: every use of a name costs its length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx.quantization.weights import RECURRENT


def compact(model: ir.Model) -> None:
    """Drop, in place, shapes that follow from others, and names that tell nothing.

    Ports, weights, recurrent nodes and the wires that were there before keep theirs.
    """
    _take_back(model)
    common.RemoveUnusedNodesPass()(model)
    names = _free_names(model)
    for node in model.graph.all_nodes():
        for place, value in enumerate(node.outputs):
            if value.name == f"{node.name}.{place}":  # as `name_nodes` has it
                value.name = next(names)
            if not value.is_graph_output():
                value.type = value.shape = None
        if not node.op_type.endswith(RECURRENT):
            node.name = ""
    for value in model.graph.initializers.values():
        value.type = value.shape = None


def _take_back(model: ir.Model) -> None:
    """Read directly what gets an axis of length 1 and loses it again, as single directions do."""
    for node in model.graph:
        source = _unsqueezed(node)
        if source is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(source)


def _unsqueezed(node: ir.Node) -> ir.Value | None:
    """What a Squeeze gives back, where the same axes have been put in just before."""
    wide = node.inputs[0].producer() if node.op_type == "Squeeze" and node.inputs[0] else None
    if wide is None or wide.op_type != "Unsqueeze" or wide.inputs[1] is not node.inputs[1]:
        return None
    return wide.inputs[0]


def _free_names(model: ir.Model) -> Iterator[str]:
    graphs = list(model.graphs())
    ports = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    taken = {value.name for value in (*ports, *made)}
    return (name for name in map(str, count()) if name not in taken)
