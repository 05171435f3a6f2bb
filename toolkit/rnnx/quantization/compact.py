"""Leaves out of a quantized graph what only tells of it: every use of a name costs its length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx.quantization.store import MADE_UP
from rnnx.quantization.weights import RECURRENT

_NAMED = (*RECURRENT, "DynamicQuantizeLSTM")  # by their layers


def compact(model: ir.Model) -> None:
    """Drop, in place, shapes that follow from others, and names that tell nothing.

    Ports, weights, recurrent nodes and the wires that were there before keep theirs.
    """
    _take_back(model)
    common.RemoveUnusedNodesPass()(model)
    names = _free_names(model)
    for node in model.graph.all_nodes():
        node.name = node.name if node.op_type in _NAMED else ""
        for value in node.outputs:
            if value.meta.get(MADE_UP) == value.name:
                value.name = next(names)
            _forget_shape(value)
    for value in model.graph.initializers.values():
        _forget_shape(value)


def _forget_shape(value: ir.Value) -> None:
    if not (value.is_graph_input() or value.is_graph_output()):
        value.type = value.shape = None


def _take_back(model: ir.Model) -> None:
    """Read directly what gets an axis of length 1 and loses it again, as single directions do."""
    for node in model.graph:
        source = _unsqueezed(node)
        if source is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(source)


def _unsqueezed(node: ir.Node) -> ir.Value | None:
    """What a Squeeze gives back, where the same axes have been put in just before."""
    wide = node.inputs[0].producer() if _is(node, "Squeeze") and node.inputs[0] else None
    if wide is None or not _is(wide, "Unsqueeze"):
        return None
    axes = node.inputs[1:]  # before opset 13 an attribute: such a pair stays
    return wide.inputs[0] if any(axes) and axes == wide.inputs[1:] else None


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in ("", "ai.onnx")


def _free_names(model: ir.Model) -> Iterator[str]:
    graphs = list(model.graphs())
    ports = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    taken = {value.name for value in (*ports, *made)}
    return (name for name in map(str, count()) if name not in taken)
