"""GRU and RNN computed in int8: the gates of a cell as operators, in a Scan over the frames.

onnxruntime has no int8 operator for these cells. Both products of a step, of the frame and of the
state, are taken inside the Scan, each with a scale of its own for each frame: so where a sequence
is cut into chunks changes no bit. A step form has the body without the Scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.rows import quantize_rows
from rnnx.quantization.store import add_initializer, drop_unused
from rnnx.quantization.weights import constant_array, is_constant

Array = npt.NDArray[Any]

DOMAIN = "com.microsoft"
# From this hidden_size on a step in int8 took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 160, "RNN": 150}
_ACTIVATIONS = {"GRU": [["Sigmoid", "Tanh"]], "RNN": [["Tanh"], ["Relu"]]}
_SEQUENCE_LENS, _INITIAL_H = 4, 5


def is_convertible(node: ir.Node) -> bool:
    """Whether a node is a GRU or RNN that can be computed in int8, and large enough to gain."""
    if node.op_type not in BREAK_EVEN or node.domain not in ("", "ai.onnx"):
        return False
    if _input(node, _SEQUENCE_LENS) is not None or "clip" in node.attributes:
        return False
    if node.attributes.get_int("layout", 0):
        return False
    if not all(is_constant(value) for value in node.inputs[1:3]):
        return False
    if _input(node, 3) is not None and not is_constant(node.inputs[3]):
        return False
    usual = all(activations in _ACTIVATIONS[node.op_type] for activations in _activations(node))
    return usual and _hidden_size(node) >= BREAK_EVEN[node.op_type]


def convert(node: ir.Node, largest: int) -> None:
    """Put a Scan for each direction in the place of a GRU or RNN node.

    Args:
        node: one that is convertible.
        largest: the code of the largest weight of a row.
    """
    graph, weights = node.graph, node.inputs[1:4]
    assert isinstance(graph, ir.Graph)
    tape = Tape()
    ends = [_scan(tape, graph, node, place, largest) for place in range(len(_backward(node)))]
    ys = [tape.op("Unsqueeze", [y, _axes(graph, 1)]) for _, y in ends]
    hs = [tape.op("Unsqueeze", [h, _axes(graph, 0)]) for h, _ in ends]
    y, h = tape.op("Concat", ys, {"axis": 1}), tape.op("Concat", hs, {"axis": 0})
    _name(tape.nodes, f"{node.name}.int8")
    graph.insert_before(node, tape.nodes)
    for old, new in zip(node.outputs, (y, h), strict=False):
        old.replace_all_uses_with(new)
    graph.remove(node, safe=True)
    for value in weights:
        if value is not None:
            drop_unused(value)


@dataclass(frozen=True, slots=True)
class _Product:
    """`x` times a weight, plus a bias, in int8."""

    codes: ir.Value
    scale: ir.Value
    bias: ir.Value
    one: ir.Value

    def of(self, tape: Tape, x: ir.Value) -> ir.Value:
        """The kernel is faster with one scale than with one a row; these are applied after it."""
        factors = [x, self.codes, self.one, None, self.bias]
        product = tape.op("DynamicQuantizeMatMul", factors, domain=DOMAIN)
        return tape.op("Mul", [product, self.scale])


def _product(graph: ir.Graph, name: str, weight: Array, bias: Array, largest: int) -> _Product:
    """Weight `[rows, features]` and bias `[rows]` as a product takes them."""
    codes, scale = quantize_rows(weight, (1,), largest)
    zeros = ~weight.any(1)
    scale = np.where(zeros, np.float32(1), scale[:, 0])  # by which the bias is divided
    return _Product(
        codes=add_initializer(graph, f"{name}.codes", codes.T),
        scale=add_initializer(graph, f"{name}.scale", scale),
        bias=add_initializer(graph, f"{name}.bias", (bias / scale).astype(np.float32)),
        one=add_initializer(graph, f"{name}.one", np.ones((), np.float32)),
    )


def _scan(
    tape: Tape, graph: ir.Graph, node: ir.Node, place: int, largest: int
) -> tuple[ir.Value, ir.Value]:
    """One direction: its last state `[batch, hidden_size]`, its outputs `[time, batch, ...]`."""
    w, r = (constant_array(value)[place] for value in node.inputs[1:3])
    rows = len(w)
    bias = _input(node, 3)
    both = np.zeros(2 * rows, np.float32) if bias is None else constant_array(bias)[place]
    name = f"{node.name}.{place}"
    body = _BODIES[node.op_type](graph, node, place, name, (w, r, both), largest)
    backward = int(_backward(node)[place])
    attributes: dict[str, Any] = {
        "body": body,
        "num_scan_inputs": 1,
        "scan_input_directions": [backward],
        "scan_output_directions": [backward],
    }
    start = _start(tape, graph, node, place)
    end, y = tape.op_multi_out("Scan", [start, node.inputs[0]], attributes, num_outputs=2)
    return end, y


def _start(tape: Tape, graph: ir.Graph, node: ir.Node, place: int) -> ir.Value:
    initial = _input(node, _INITIAL_H)
    if initial is not None:
        return tape.op("Gather", [initial, _scalar(graph, place)], {"axis": 0})
    batch = tape.op("Shape", [node.inputs[0]], {"start": 1, "end": 2})
    size = add_initializer(graph, f"{node.name}.size", np.array([_hidden_size(node)]))
    zero = ir.tensor(np.zeros(1, np.float32))
    return tape.op(
        "ConstantOfShape", [tape.op("Concat", [batch, size], {"axis": 0})], {"value": zero}
    )


def _gru_body(
    graph: ir.Graph,
    node: ir.Node,
    place: int,
    name: str,
    weights: tuple[Array, Array, Array],
    largest: int,
) -> ir.Graph:
    """z and r; then the candidate: r multiplies its recurrent part before or after the product."""
    w, r, bias = weights
    hidden = _hidden_size(node)
    two = 2 * hidden
    after = bool(node.attributes.get_int("linear_before_reset", 0))
    split = add_initializer(graph, f"{name}.split", np.array([two, hidden]))
    halves = add_initializer(graph, f"{name}.halves", np.array([hidden, hidden]))
    recurrent = bias[3 * hidden :]
    h, x, tape = *_ends(name, hidden, w.shape[1]), Tape()
    given = _product(graph, f"{name}.W", w, bias[: 3 * hidden], largest).of(tape, x)
    gates, candidate = _split(tape, given, split)
    if after:
        kept = _product(graph, f"{name}.R", r, recurrent, largest).of(tape, h)
        kept_gates, kept_candidate = _split(tape, kept, split)
    else:
        kept_gates = _product(graph, f"{name}.Rzr", r[:two], recurrent[:two], largest).of(tape, h)
    zr = tape.op("Sigmoid", [tape.op("Add", [gates, kept_gates])])
    z, reset = _split(tape, zr, halves)
    if after:
        kept_candidate = tape.op("Mul", [reset, kept_candidate])
    else:
        last = _product(graph, f"{name}.Rn", r[two:], recurrent[two:], largest)
        kept_candidate = last.of(tape, tape.op("Mul", [reset, h]))
    n = tape.op("Tanh", [tape.op("Add", [candidate, kept_candidate])])
    following = tape.op("Add", [n, tape.op("Mul", [z, tape.op("Sub", [h, n])])])
    return _body(tape, name, (h, x), following)


def _rnn_body(
    graph: ir.Graph,
    node: ir.Node,
    place: int,
    name: str,
    weights: tuple[Array, Array, Array],
    largest: int,
) -> ir.Graph:
    w, r, bias = weights
    hidden = _hidden_size(node)
    h, x, tape = *_ends(name, hidden, w.shape[1]), Tape()
    given = _product(graph, f"{name}.W", w, bias[:hidden], largest).of(tape, x)
    kept = _product(graph, f"{name}.R", r, bias[hidden:], largest).of(tape, h)
    (activation,) = _activations(node)[place]
    following = tape.op(activation, [tape.op("Add", [given, kept])])
    return _body(tape, name, (h, x), following)


_BODIES = {"GRU": _gru_body, "RNN": _rnn_body}


def _ends(name: str, hidden: int, features: int) -> tuple[ir.Value, ir.Value]:
    """The state before a frame, and the frame."""
    return (
        ir.val(f"{name}.h", ir.DataType.FLOAT, ["batch", hidden]),
        ir.val(f"{name}.x", ir.DataType.FLOAT, ["batch", features]),
    )


def _body(tape: Tape, name: str, inputs: Sequence[ir.Value], following: ir.Value) -> ir.Graph:
    following.dtype, following.shape = ir.DataType.FLOAT, inputs[0].shape
    given = tape.op("Identity", [following])
    given.dtype, given.shape = ir.DataType.FLOAT, inputs[0].shape
    _name(tape.nodes, f"{name}.step")
    return ir.Graph(inputs, [following, given], nodes=tape.nodes, name=name)


def _name(nodes: Iterable[ir.Node], name: str) -> None:
    """Names that onnx-ir gives are unique within one graph only."""
    for number, node in enumerate(nodes):
        node.name = f"{name}.{number}"
        for place, value in enumerate(node.outputs):
            value.name = f"{node.name}.{place}"


def _split(tape: Tape, value: ir.Value, sizes: ir.Value) -> tuple[ir.Value, ir.Value]:
    first, second = tape.op_multi_out("Split", [value, sizes], {"axis": 1}, num_outputs=2)
    return first, second


def _axes(graph: ir.Graph, axis: int) -> ir.Value:
    return _kept(graph, f"rnnx.axes{axis}", np.array([axis]))


def _scalar(graph: ir.Graph, value: int) -> ir.Value:
    return _kept(graph, f"rnnx.index{value}", np.array(value))


def _kept(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    return graph.initializers.get(name) or add_initializer(graph, name, array)


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _hidden_size(node: ir.Node) -> int:
    return int(constant_array(node.inputs[2]).shape[2])


def _backward(node: ir.Node) -> list[bool]:
    """For each direction whether it begins at the last frame."""
    direction = node.attributes.get_string("direction", "forward")
    return {"forward": [False], "reverse": [True]}.get(str(direction), [False, True])


def _activations(node: ir.Node) -> list[list[str]]:
    """The activations of each direction; torch's exporter names more than there are directions."""
    usual, count = _ACTIVATIONS[node.op_type][0], len(_backward(node))
    named = list(node.attributes.get_strings("activations") or usual * count)
    return [named[place * len(usual) :][: len(usual)] for place in range(count)]
