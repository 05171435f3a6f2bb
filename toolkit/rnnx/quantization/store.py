"""Keeps weights small in the file; the graph widens them again, once, when it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.change import Change
from rnnx.quantization.weights import (
    RECURRENT,
    Weight,
    constant_array,
    describe_computed,
    find_weights,
    is_constant,
)

if TYPE_CHECKING:
    from rnnx.quantization.forms import Form

Array = npt.NDArray[Any]

# Where operators have their biases, and how far one may be off, as a part of the largest.
_BIASES = {
    "RNN": 3,
    "GRU": 3,
    "LSTM": 3,
    "DynamicQuantizeLSTM": 3,
    "Gemm": 2,
    "Conv": 2,
    "ConvTranspose": 2,
}
_BIAS_ATOL = 1e-4

MADE_UP = "rnnx.made_up"  # in a value's meta: the name that it got for want of one

# What two more nodes and their names cost in the file: a weight that saves less stays as it is.
OVERHEAD_BYTES = 256


def store_weights(model: ir.Model, shrink: Callable[[Weight], Form]) -> Change:
    """Keep every weight of `model` in a smaller form, widened when it is loaded.

    Args:
        model: changed in place.
        shrink: gives the form of a weight.
    """
    change = Change(notes=_computed_weights(model))
    touched: set[ir.Node] = set()
    kept = 0
    for weight in list(find_weights(model)):
        form = shrink(weight)
        if weight.array().nbytes - form.nbytes < OVERHEAD_BYTES:
            kept += 1
        else:
            _replace(weight, form)
            touched.update(weight.nodes)
    _halve_biases(model)
    if kept:
        change.notes.append(f"{kept} small weights stay float32: they would save next to nothing.")
    change.changed = Counter(node.op_type for node in touched)
    return change


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """`array` as a new initializer of `graph`."""
    value = ir.val(name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
    graph.register_initializer(value)
    return value


def constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """`array` as an initializer of `graph`: the one of that name, where there is one."""
    return graph.initializers.get(name) or add_initializer(graph, name, array)


def name_nodes(nodes: Iterable[ir.Node], name: str) -> None:
    """Name new nodes and what they give: names of onnx-ir are unique within one graph only."""
    for number, node in enumerate(nodes):
        node.name = f"{name}.{number}"
        for place, value in enumerate(node.outputs):
            value.name = value.meta[MADE_UP] = f"{node.name}.{place}"


def add_vector(graph: ir.Graph, name: str, array: Array, *, atol: float = 0.0) -> ir.Value:
    """`array` kept as float16 and widened when the file is loaded, where that is near enough.

    Args:
        graph: the one whose nodes read it.
        name: of the value.
        array: float32.
        atol: how far an element may be off besides a thousandth of itself.
    """
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    off = np.abs(small.astype(np.float32) - array)
    if not (off <= atol + 1e-3 * np.abs(array)).all():
        return add_initializer(graph, name, array)
    source = add_initializer(graph, f"{name}/float16", small)
    cast = ir.node("Cast", [source], attributes={"to": ir.DataType.FLOAT.value})
    graph.insert_before(graph[0], cast)
    wide = cast.outputs[0]
    wide.name, wide.shape, wide.dtype = name, ir.Shape(array.shape), ir.DataType.FLOAT
    return wide


def drop_unused(value: ir.Value) -> None:
    """Remove an initializer that nothing reads any more."""
    if value.graph is not None and not value.uses() and not value.is_graph_output():
        value.graph.initializers.pop(str(value.name))


def _halve_biases(model: ir.Model) -> None:
    """Keep biases as float16 that are large enough to gain."""
    for graph in model.graphs():
        for value in filter(_is_bias, list(graph.initializers.values())):
            array = constant_array(value)
            if array.nbytes // 2 >= OVERHEAD_BYTES:
                atol = _BIAS_ATOL * float(np.abs(array).max())
                value.replace_all_uses_with(
                    add_vector(graph, f"{value.name}/wide", array, atol=atol)
                )
                drop_unused(value)


def _is_bias(value: ir.Value) -> bool:
    places = {_BIASES.get(node.op_type) == place for node, place in value.uses()}
    return is_constant(value) and places == {True}


def _computed_weights(model: ir.Model) -> list[str]:
    nodes = [node for node in model.graph.all_nodes() if node.op_type in RECURRENT]
    return [note for note in map(describe_computed, nodes) if note]


def _replace(weight: Weight, form: Form) -> None:
    """Put what widens the form in the place of the initializer, for all that read it."""
    value, graph = weight.value, weight.value.graph
    assert graph is not None
    tape = Tape()
    wide = form.widened(tape, graph, str(value.name))
    name_nodes(tape.nodes, f"{value.name}/widen")
    graph.insert_before(graph[0], tape.nodes)
    value.replace_all_uses_with(wide)
    drop_unused(value)
    wide.name, wide.shape, wide.dtype = value.name, value.shape, ir.DataType.FLOAT
