"""Recurrent cells computed with small weights: their gates as operators, in a Scan over the frames.

onnxruntime has a small-weight operator for none of these cells but LSTM. Both products of a step,
of the frame and of the state, are taken inside the Scan, each scaled for each frame by itself: so
where a sequence is cut into chunks changes no bit. A step form has the body without the Scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.kernels import Kernel, Site
from rnnx.quantization.store import constant, drop_unused, name_nodes
from rnnx.quantization.weights import INITIAL_H, constant_array, is_constant

Array = npt.NDArray[Any]

_ACTIVATIONS = {
    "GRU": [["Sigmoid", "Tanh"]],
    "LSTM": [["Sigmoid", "Tanh", "Tanh"]],
    "RNN": [["Tanh"], ["Relu"]],
}
_SEQUENCE_LENS, _PEEPHOLES = 4, 7


def is_convertible(node: ir.Node) -> bool:
    """Whether a node is an RNN, GRU or LSTM whose gates can be written as operators."""
    if node.op_type not in _ACTIVATIONS or node.domain not in ("", "ai.onnx"):
        return False
    if _input(node, _PEEPHOLES) is not None:
        return False
    if "clip" in node.attributes or any(map(node.attributes.get_int, ("layout", "input_forget"))):
        return False
    if not all(is_constant(value) for value in node.inputs[1:3]):
        return False
    if _input(node, 3) is not None and not is_constant(node.inputs[3]):
        return False
    return all(activations in _ACTIVATIONS[node.op_type] for activations in _activations(node))


def convertible(
    model: ir.Model, least: Mapping[str, int], ways: Mapping[str, str]
) -> list[ir.Node]:
    """The nodes to convert, of those that can be.

    Args:
        model: whose nodes, those of subgraphs included.
        least: for each operator the hidden_size from which on its nodes are, unless named.
        ways: what is to become of nodes, by their names; see `Given`.
    """
    nodes = [node for node in model.graph.all_nodes() if is_convertible(node)]
    return [node for node in nodes if _is_wanted(node, least, ways)]


def _is_wanted(node: ir.Node, least: Mapping[str, int], ways: Mapping[str, str]) -> bool:
    way = ways.get(str(node.name))
    if way is not None:
        return way == "gates"
    return node.op_type in least and _hidden_size(node) >= least[node.op_type]


def convert(node: ir.Node, kernel: Kernel) -> None:
    """Put a Scan for each direction in the place of a recurrent node.

    Args:
        node: one that is convertible.
        kernel: what its products are computed with.
    """
    graph, weights = node.graph, node.inputs[1:4]
    assert isinstance(graph, ir.Graph)
    tape = Tape()
    scans = [_scan(tape, graph, node, place, kernel) for place in range(len(directions_of(node)))]
    *states, ys = zip(*scans, strict=True)  # each of all directions
    results = [_stacked(tape, graph, ys, 1), *(_stacked(tape, graph, ends, 0) for ends in states)]
    name_nodes(tape.nodes, f"{node.name}.gates")
    graph.insert_before(node, tape.nodes)
    asked = [(old, new) for old, new in zip(node.outputs, results, strict=False) if old.name]
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
    """One direction of a recurrent node, `gates * hidden_size` rows.

    Attributes:
        kernel: what its products are computed with.
        site: where its operators go.
        w, r: the weights of the frame and of the state, `[rows, features]`.
        bias: that of both, `[2, rows]`.
        activation: of the new state.
        reset_after: whether the reset gate multiplies the product, not the state.
        ragged: whether sequences have lengths: beyond them states stay and outputs are 0.
    """

    kernel: Kernel
    site: Site
    w: Array
    r: Array
    bias: Array
    activation: str
    reset_after: bool
    ragged: bool

    @property
    def hidden_size(self) -> int:
        return int(self.r.shape[1])


def _scan(
    tape: Tape, graph: ir.Graph, node: ir.Node, place: int, kernel: Kernel
) -> tuple[ir.Value, ...]:
    """One direction: its last states `[batch, hidden_size]`, its outputs `[time, batch, ...]`."""
    cell = _cell(graph, node, place, kernel)
    backward = int(directions_of(node)[place])
    starts = [_start(tape, graph, node, place, state) for state in range(_num_states(node))]
    frames = [node.inputs[0], *([_mask(tape, graph, node)] if cell.ragged else [])]
    attributes: dict[str, Any] = {
        "body": _BODIES[node.op_type](cell),
        "num_scan_inputs": len(frames),
        "scan_input_directions": [backward] * len(frames),
        "scan_output_directions": [backward],
    }
    taken, count = [*starts, *frames], len(starts) + 1
    return tuple(tape.op_multi_out("Scan", taken, attributes, num_outputs=count))


def _mask(tape: Tape, graph: ir.Graph, node: ir.Node) -> ir.Value:
    """Which frames are within their sequences, `[time, batch, 1]`.

    A backward Scan meets those beyond the end first and leaves the start as it is, so that each
    sequence begins at its own last frame, as the operator has it.
    """
    first, step = (constant(graph, f"rnnx.int{n}", np.array(n, np.int32)) for n in (0, 1))
    count = tape.op("Squeeze", [tape.op("Shape", [node.inputs[0]], {"start": 0, "end": 1})])
    end = tape.op("Cast", [count], {"to": ir.DataType.INT32.value})
    times = tape.op("Range", [first, end, step])
    axes, last = (constant(graph, f"rnnx.axes{a}", np.array(a)) for a in ([1, 2], [1]))
    lengths = tape.op("Unsqueeze", [node.inputs[_SEQUENCE_LENS], last])
    return tape.op("Less", [tape.op("Unsqueeze", [times, axes]), lengths])


def _cell(graph: ir.Graph, node: ir.Node, place: int, kernel: Kernel) -> _Cell:
    w, r = (constant_array(value)[place] for value in node.inputs[1:3])
    bias = _input(node, 3)
    both = np.zeros(2 * len(w), np.float32) if bias is None else constant_array(bias)[place]
    return _Cell(
        kernel=kernel,
        site=Site(Tape(), graph, f"{node.name}.{place}"),
        w=w,
        r=r,
        bias=both.reshape(2, len(w)),
        activation=_activations(node)[place][-1],
        reset_after=bool(node.attributes.get_int("linear_before_reset", 0)),
        ragged=_input(node, _SEQUENCE_LENS) is not None,
    )


def _stacked(tape: Tape, graph: ir.Graph, values: Sequence[ir.Value], axis: int) -> ir.Value:
    """What the directions give, side by side along a new axis."""
    place = constant(graph, f"rnnx.axes{[axis]}", np.array([axis]))
    wide = [tape.op("Unsqueeze", [value, place]) for value in values]
    return wide[0] if len(wide) == 1 else tape.op("Concat", wide, {"axis": axis})


def _start(tape: Tape, graph: ir.Graph, node: ir.Node, place: int, state: int) -> ir.Value:
    initial = _input(node, INITIAL_H + state)
    if initial is not None and len(directions_of(node)) == 1:
        return tape.op("Squeeze", [initial, constant(graph, "rnnx.axes[0]", np.array([0]))])
    if initial is not None:
        index = constant(graph, f"rnnx.index{place}", np.array(place))
        return tape.op("Gather", [initial, index], {"axis": 0})
    batch = tape.op("Shape", [node.inputs[0]], {"start": 1, "end": 2})
    size = constant(graph, f"rnnx.size{_hidden_size(node)}", np.array([_hidden_size(node)]))
    zero = ir.tensor(np.zeros(1, np.float32))
    shape = tape.op("Concat", [batch, size], {"axis": 0})
    return tape.op("ConstantOfShape", [shape], {"value": zero})


def _rnn_body(cell: _Cell) -> ir.Graph:
    x, h = _frame(cell), _state(cell, "h")
    tape = cell.site.tape
    total = cell.kernel.sum(cell.site, x, cell.w, h, cell.r, cell.bias.sum(0))
    return _body(cell, [h, x], [tape.op(cell.activation, [total])])


def _gru_body(cell: _Cell) -> ir.Graph:
    """z and r; then the candidate: r multiplies its recurrent part before or after the product."""
    x, h = _frame(cell), _state(cell, "h")
    tape, times, rows = cell.site.tape, cell.kernel.product, 2 * cell.hidden_size  # of z and r
    bias, recurrent = cell.bias
    given = _split(cell, times(cell.site, "W", x, cell.w, bias), 2, 1)
    if cell.reset_after:
        kept = _split(cell, times(cell.site, "R", h, cell.r, recurrent), 2, 1)
        kept_gates = kept[0]
    else:
        kept_gates = times(cell.site, "Rzr", h, cell.r[:rows], recurrent[:rows])
    z, r = _split(cell, tape.op("Sigmoid", [tape.op("Add", [given[0], kept_gates])]), 1, 1)
    if cell.reset_after:
        kept_candidate = tape.op("Mul", [r, kept[1]])
    else:
        reset = tape.op("Mul", [r, h])
        kept_candidate = times(cell.site, "Rn", reset, cell.r[rows:], recurrent[rows:])
    n = tape.op("Tanh", [tape.op("Add", [given[1], kept_candidate])])
    following = tape.op("Add", [n, tape.op("Mul", [z, tape.op("Sub", [h, n])])])
    return _body(cell, [h, x], [following])


def _lstm_body(cell: _Cell) -> ir.Graph:
    x, h, c = _frame(cell), _state(cell, "h"), _state(cell, "c")
    tape = cell.site.tape
    total = cell.kernel.sum(cell.site, x, cell.w, h, cell.r, cell.bias.sum(0))
    gates, candidate = _split(cell, total, 3, 1)
    i, o, f = _split(cell, tape.op("Sigmoid", [gates]), 1, 1, 1)
    new = tape.op("Mul", [i, tape.op("Tanh", [candidate])])
    next_c = tape.op("Add", [tape.op("Mul", [f, c]), new])
    next_h = tape.op("Mul", [o, tape.op("Tanh", [next_c])])
    return _body(cell, [h, c, x], [next_h, next_c])


_BODIES = {"GRU": _gru_body, "LSTM": _lstm_body, "RNN": _rnn_body}


def _frame(cell: _Cell) -> ir.Value:
    return ir.val(f"{cell.site.name}.x", ir.DataType.FLOAT, ["batch", cell.w.shape[1]])


def _state(cell: _Cell, letter: str) -> ir.Value:
    return ir.val(f"{cell.site.name}.{letter}", ir.DataType.FLOAT, ["batch", cell.hidden_size])


def _body(cell: _Cell, inputs: Sequence[ir.Value], states: Sequence[ir.Value]) -> ir.Graph:
    """The body of a Scan: what it takes, the states it gives, of which the first is the output."""
    taken, outputs = [*inputs], [*states]
    if cell.ragged:
        taken.append(ir.val(f"{cell.site.name}.mask", ir.DataType.BOOL, ["batch", 1]))
        outputs = _masked(cell, taken[-1], inputs, states)
    else:
        outputs.append(cell.site.tape.op("Identity", [states[0]]))
    for value in outputs:
        value.dtype, value.shape = ir.DataType.FLOAT, inputs[0].shape
    nodes = cell.site.tape.nodes
    name_nodes(nodes, f"{cell.site.name}.step")
    return ir.Graph(taken, outputs, nodes=nodes, name=cell.site.name)


def _masked(
    cell: _Cell, mask: ir.Value, inputs: Sequence[ir.Value], states: Sequence[ir.Value]
) -> list[ir.Value]:
    """What a body gives: beyond the end of a sequence its states as they were, and 0."""
    zero = constant(cell.site.graph, "rnnx.zero", np.zeros((), np.float32))
    pairs = [*zip(states, inputs, strict=False), (states[0], zero)]
    return [cell.site.tape.op("Where", [mask, *pair]) for pair in pairs]


def _split(cell: _Cell, value: ir.Value, *gates: int) -> Sequence[ir.Value]:
    """Parts of so many gates each."""
    sizes = np.array(gates) * cell.hidden_size
    name = "rnnx.split." + ".".join(map(str, sizes))
    taken = [value, constant(cell.site.graph, name, sizes)]
    return cell.site.tape.op_multi_out("Split", taken, {"axis": 1}, num_outputs=len(gates))


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _hidden_size(node: ir.Node) -> int:
    return int(constant_array(node.inputs[2]).shape[2])


def _num_states(node: ir.Node) -> int:
    return 2 if node.op_type == "LSTM" else 1


def directions_of(node: ir.Node) -> list[bool]:
    """For each direction of a recurrent node whether it begins at the last frame."""
    direction = node.attributes.get_string("direction", "forward")
    return {"forward": [False], "reverse": [True]}.get(str(direction), [False, True])


def _activations(node: ir.Node) -> list[list[str]]:
    """The activations of each direction; torch's exporter names more than there are directions."""
    usual, count = _ACTIVATIONS[node.op_type][0], len(directions_of(node))
    named = list(node.attributes.get_strings("activations") or usual * count)
    return [named[place * len(usual) :][: len(usual)] for place in range(count)]
