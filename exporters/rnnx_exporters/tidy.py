"""Tidies a freshly translated graph: folds constants, names axes and nodes, drops torch's notes."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from rnnx_exporters.cells import LAYER_KEY, OPERATORS
from rnnx_exporters.recognise import recognise

MODULE_KEY = "rnnx.module"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_WEIGHTS = {1: "W", 2: "R", 3: "B", 7: "P"}


def tidy(model: ir.Model, symbols: Mapping[str, str]) -> int:
    """Fold, optimize, name and strip `model` in place; Scans that can be native become so.

    Args:
        model: a graph as torch.onnx translates it.
        symbols: for each of torch's symbols (`s77`), the axis' name.

    Returns:
        How many Scans became native recurrent nodes.
    """
    fold_weights(model)
    optimizer.optimize_ir(model)
    _name_axes(model, symbols)
    _count_wires(model)
    _strip(model)
    recognised = recognise(model)
    _name_recurrent(model)
    return recognised


def fold_weights(model: ir.Model) -> None:
    """Make the weights of every recurrent node plain initializers, of whatever size they are."""
    common.CommonSubexpressionEliminationPass()(model)
    packing = set(_packing(model))
    optimizer.fold_constants(
        model,
        input_size_limit=sys.maxsize,
        output_size_limit=sys.maxsize,
        should_fold=lambda node: node in packing,
    )
    common.RemoveUnusedNodesPass()(model)


def recurrent_nodes(model: ir.Model) -> list[ir.Node]:
    """The RNN, GRU and LSTM nodes of the graph, subgraphs included."""
    return [node for node in model.graph.all_nodes() if node.op_type in OPERATORS]


def module_of(node: ir.Node) -> str:
    """The torch module a node came from, or the node's own name."""
    return node.metadata_props.get(MODULE_KEY) or node.name or node.op_type


def layer_of(node: ir.Node) -> int:
    """The layer inside its module that a recurrent node is."""
    return int(node.metadata_props.get(LAYER_KEY, "0"))


def _packing(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes that compute the weights (inputs W, R and B) of recurrent nodes."""
    values = [value for node in recurrent_nodes(model) for value in node.inputs[1:4]]
    seen: set[ir.Node] = set()
    while values:
        value = values.pop()
        node = value.producer() if value is not None else None
        if node is not None and node not in seen:
            seen.add(node)
            values.extend(node.inputs)
            yield node


def _name_axes(model: ir.Model, symbols: Mapping[str, str]) -> None:
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, symbols) for dim in value.shape])


def _count_wires(model: ir.Model) -> None:
    """Let every Range from 0 or 1 count along a wire of its length, if there is one before it.

    torch computes sizes from those of the inputs, of which nobody can tell what they count.
    """
    axes: dict[str, tuple[ir.Value, int]] = {}
    for node in list(model.graph):
        if node.op_type == "Range":
            _count_along(model, node, axes)
            continue
        for value in node.outputs:
            free = [(str(d), i) for i, d in enumerate(value.shape or ()) if not isinstance(d, int)]
            axes.update({name: (value, axis) for name, axis in free if name != "None"})


def _count_along(model: ir.Model, node: ir.Node, axes: Mapping[str, tuple[ir.Value, int]]) -> None:
    shape = node.outputs[0].shape
    found = axes.get(str(shape[0])) if shape is not None else None
    step = None if node.inputs[2] is None else ir.convenience.get_const_tensor(node.inputs[2])
    if found is None or step is None or step.dtype != ir.DataType.INT64 or step.numpy() != 1:
        return
    value, axis = found
    size = ir.node("Shape", [value], {"start": axis, "end": axis + 1})
    scalar = ir.node("Squeeze", size.outputs)
    limit = ir.node("Add", [scalar.outputs[0], node.inputs[0]])
    model.graph.insert_before(node, [size, scalar, limit])
    node.replace_input_with(1, limit.outputs[0])


def _renamed(dim: int | ir.SymbolicDim, symbols: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    name = ast.unparse(ast.parse(rename(str(dim.value), symbols), mode="eval"))
    return int(name) if name.isdecimal() else name  # torch writes a size it froze as text


def rename(expression: str, symbols: Mapping[str, str]) -> str:
    """An expression over torch's symbols as one over the axes' names."""
    renamed = re.sub(r"\b\w+\b", lambda match: symbols.get(match[0], match[0]), expression)
    return re.sub(r"\b(\d+)\*\((\w+) // \1\)", r"\2", renamed)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _strip(model: ir.Model) -> None:
    """Keep of torch's notes only each node's module; the rest holds the user's paths and code."""
    modules = {node: _module(node) for node in model.graph.all_nodes()}
    layers = {node: node.metadata_props.get(LAYER_KEY) for node in recurrent_nodes(model)}
    common.ClearMetadataAndDocStringPass()(model)
    for value in _values(model):
        value.metadata_props.clear()
    for node, module in modules.items():
        if module:
            node.metadata_props[MODULE_KEY] = module
    for node, layer in layers.items():
        if layer is not None:
            node.metadata_props[LAYER_KEY] = layer


def _module(node: ir.Node) -> str:
    scopes = node.metadata_props.get(_SCOPES_KEY)
    path = ast.literal_eval(scopes) if scopes else []
    return path[-2] if len(path) > 1 and not path[-2].startswith("_empty") else ""


def _name_recurrent(model: ir.Model) -> None:
    """Name recurrent nodes after their module and layer, and their weights after the node."""
    taken: set[str] = set()
    for node in recurrent_nodes(model):
        module = node.metadata_props.get(MODULE_KEY) or node.op_type.lower()
        name = _free_name(f"{module}.l{node.metadata_props.get(LAYER_KEY, 0)}", taken)
        node.name = name
        for place, letter in _WEIGHTS.items():
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and value.is_initializer() and _is_unnamed(value):
                _rename(model, value, f"{name}.{letter}")


def _is_unnamed(value: ir.Value) -> bool:
    return (value.name or "").startswith("val_")


def _free_name(wanted: str, taken: set[str]) -> str:
    name = wanted
    call = 2
    while name in taken:
        name, call = f"{wanted}.call{call}", call + 1
    taken.add(name)
    return name


def _rename(model: ir.Model, value: ir.Value, name: str) -> None:
    initializers = value.graph.initializers if value.graph else model.graph.initializers
    if name not in initializers:
        ir.convenience.rename_values([value], [name])
