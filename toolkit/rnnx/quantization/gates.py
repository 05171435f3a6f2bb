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
from rnnx.quantization.store import add_initializer, add_vector, drop_unused
from rnnx.quantization.weights import constant_array, is_constant

Array = npt.NDArray[Any]

DOMAIN = "com.microsoft"
# From this hidden_size on a step in int8 took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 160, "RNN": 150}
_ACTIVATIONS = {"GRU": [["Sigmoid", "Tanh"]], "RNN": [["Tanh"], ["Relu"]]}
_BIAS_ATOL = 0.01  # of a step of the weights
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
    asked = [(old, new) for old, new in zip(node.outputs, (y, h), strict=False) if old.name]
    for old, new in asked:
        new.name, old.name = old.name, f"{old.name}.float"
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    for value in weights:
        if value is not None:
            drop_unused(value)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction of a GRU or RNN, `gates * hidden_size` rows.

    Attributes:
        graph: the one around the Scan, which holds the weights.
        name: what all names begin with.
        w, r: the weights of the frame and of the state, `[rows, features]`.
        bias: that of both, `[2, rows]`.
        activation: of the new state.
        reset_after: whether the reset gate multiplies the product, not the state.
        largest: the code of the largest weight of a row.
    """

    graph: ir.Graph
    name: str
    w: Array
    r: Array
    bias: Array
    activation: str
    reset_after: bool
    largest: int

    @property
    def hidden_size(self) -> int:
        return int(self.r.shape[1])

    def codes(self, *weights: Array) -> tuple[list[Array], Array]:
        """Weights with one scale for each row of all: their codes, and the scales `[rows]`."""
        codes, scale = quantize_rows(np.concatenate(weights, 1), (1,), self.largest)
        unused = ~codes.any(1)  # rows of zeros may have any scale; the bias is divided by it
        ends = np.cumsum([weight.shape[1] for weight in weights])[:-1]
        return np.split(codes, ends, 1), np.where(unused, scale.max(), scale[:, 0])

    def product(
        self, tape: Tape, letter: str, x: ir.Value, codes: Array, scale: Array, bias: Array
    ) -> ir.Value:
        """`x` times a weight plus a bias, all of it divided by `scale / scale.max()`.

        The kernel is faster with one scale than with one for each row, so these come after it.
        """
        name, most = f"{self.name}.{letter}", scale.max()
        factors: list[ir.Value | None] = [
            x,
            add_initializer(self.graph, f"{name}.codes", codes.T),
            add_initializer(self.graph, f"{name}.largest", most),
        ]
        if bias.any():
            atol = _BIAS_ATOL * most
            vector = add_vector(self.graph, f"{name}.bias", bias / scale * most, atol=atol)
            factors += [None, vector]
        return tape.op("DynamicQuantizeMatMul", factors, domain=DOMAIN)

    def scaled(self, tape: Tape, letter: str, product: ir.Value, scale: Array) -> ir.Value:
        """A product or sum of products with its scale for each row."""
        factor = add_vector(self.graph, f"{self.name}.{letter}.scale", scale / scale.max())
        return tape.op("Mul", [product, factor])

    def whole(self, tape: Tape, letter: str, x: ir.Value, weight: Array, bias: Array) -> ir.Value:
        """`x` times a weight plus a bias."""
        (codes,), scale = self.codes(weight)
        product = self.product(tape, letter, x, codes, scale, bias)
        return self.scaled(tape, letter, product, scale)


def _scan(
    tape: Tape, graph: ir.Graph, node: ir.Node, place: int, largest: int
) -> tuple[ir.Value, ir.Value]:
    """One direction: its last state `[batch, hidden_size]`, its outputs `[time, batch, ...]`."""
    cell = _cell(graph, node, place, largest)
    backward = int(_backward(node)[place])
    attributes: dict[str, Any] = {
        "body": _BODIES[node.op_type](cell),
        "num_scan_inputs": 1,
        "scan_input_directions": [backward],
        "scan_output_directions": [backward],
    }
    start = _start(tape, graph, node, place)
    end, y = tape.op_multi_out("Scan", [start, node.inputs[0]], attributes, num_outputs=2)
    return end, y


def _cell(graph: ir.Graph, node: ir.Node, place: int, largest: int) -> _Cell:
    w, r = (constant_array(value)[place] for value in node.inputs[1:3])
    bias = _input(node, 3)
    both = np.zeros(2 * len(w), np.float32) if bias is None else constant_array(bias)[place]
    return _Cell(
        graph=graph,
        name=f"{node.name}.{place}",
        w=w,
        r=r,
        bias=both.reshape(2, len(w)),
        activation=_activations(node)[place][-1],
        reset_after=bool(node.attributes.get_int("linear_before_reset", 0)),
        largest=largest,
    )


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


def _gru_body(cell: _Cell) -> ir.Graph:
    """z and r; then the candidate: r multiplies its recurrent part before or after the product."""
    hidden, (bias, recurrent) = cell.hidden_size, cell.bias
    gates = 2 * hidden  # the rows of z and r
    split = add_initializer(cell.graph, f"{cell.name}.split", np.array([gates, hidden]))
    halves = add_initializer(cell.graph, f"{cell.name}.halves", np.array([hidden, hidden]))
    h, x, tape = *_ends(cell), Tape()
    given = _split(tape, cell.whole(tape, "W", x, cell.w, bias), split)
    if cell.reset_after:
        kept = _split(tape, cell.whole(tape, "R", h, cell.r, recurrent), split)
        kept_gates = kept[0]
    else:
        kept_gates = cell.whole(tape, "Rzr", h, cell.r[:gates], recurrent[:gates])
    z, r = _split(tape, tape.op("Sigmoid", [tape.op("Add", [given[0], kept_gates])]), halves)
    if cell.reset_after:
        kept_candidate = tape.op("Mul", [r, kept[1]])
    else:
        reset = tape.op("Mul", [r, h])
        kept_candidate = cell.whole(tape, "Rn", reset, cell.r[gates:], recurrent[gates:])
    n = tape.op("Tanh", [tape.op("Add", [given[1], kept_candidate])])
    following = tape.op("Add", [n, tape.op("Mul", [z, tape.op("Sub", [h, n])])])
    return _body(cell, tape, (h, x), following)


def _rnn_body(cell: _Cell) -> ir.Graph:
    """Both products have one scale for each row, so that it is applied once."""
    h, x, tape = *_ends(cell), Tape()
    (w, r), scale = cell.codes(cell.w, cell.r)
    given = cell.product(tape, "W", x, w, scale, cell.bias.sum(0))
    kept = cell.product(tape, "R", h, r, scale, np.zeros(len(r)))
    total = cell.scaled(tape, "WR", tape.op("Add", [given, kept]), scale)
    return _body(cell, tape, (h, x), tape.op(cell.activation, [total]))


_BODIES = {"GRU": _gru_body, "RNN": _rnn_body}


def _ends(cell: _Cell) -> tuple[ir.Value, ir.Value]:
    """The state before a frame, and the frame."""
    return (
        ir.val(f"{cell.name}.h", ir.DataType.FLOAT, ["batch", cell.hidden_size]),
        ir.val(f"{cell.name}.x", ir.DataType.FLOAT, ["batch", cell.w.shape[1]]),
    )


def _body(cell: _Cell, tape: Tape, inputs: Sequence[ir.Value], following: ir.Value) -> ir.Graph:
    following.dtype, following.shape = ir.DataType.FLOAT, inputs[0].shape
    given = tape.op("Identity", [following])
    given.dtype, given.shape = ir.DataType.FLOAT, inputs[0].shape
    _name(tape.nodes, f"{cell.name}.step")
    return ir.Graph(inputs, [following, given], nodes=tape.nodes, name=cell.name)


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
