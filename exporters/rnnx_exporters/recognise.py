"""Recognises the body of a Scan as one of ONNX's recurrent operators, however it was written.

The next state is read as a Vector of the algebra. The operators' own equations are then built from
its parts in the same algebra; where one equals the next state, the Scan becomes that operator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters.algebra import Array, Factor, Leaf, Opaque, Vector
from rnnx_exporters.scan_body import Known, Step, follow, read_step, width_of

# The native operator multiplies all of R; where R is a wide diagonal, the Scan is faster.
_WIDEST_DIAGONAL = 256
_ACTIVATIONS: Mapping[str, Mapping[str, Any]] = {"Tanh": {}, "Relu": {"activations": ["Relu"]}}
_LINEAR = {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a gate takes before its activation: `x @ w + h @ r + b`.

    Attributes:
        w: `[features, hidden_size]`.
        r: `[hidden_size, hidden_size]`.
        b: `[hidden_size]`.
        recurrent_bias: `[hidden_size]`, added to `h @ r` before a reset gate.
    """

    w: Array
    r: Array
    b: Array
    recurrent_bias: Array


@dataclass(frozen=True, slots=True)
class _Native:
    """A recurrent operator that computes the step.

    Attributes:
        operator: `RNN`, `GRU` or `LSTM`.
        gates: in ONNX's order.
        states: of the Scan's states, which is `h`, and which `c`.
        attributes: of the node.
        peepholes: of the gates i, o and f, where there are any.
    """

    operator: str
    gates: Sequence[_Gate]
    states: tuple[int, ...] = (0,)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    peepholes: Sequence[Array] = ()


def recognise(model: ir.Model) -> int:
    """Make every Scan of the graph that is an RNN, GRU or LSTM that operator.

    Args:
        model: the graph, optimized; changed in place.

    Returns:
        How many became one.
    """
    scans = [node for node in model.graph if node.op_type == "Scan"]
    constants: Known = {}
    if scans:
        follow(model.graph, constants)
    found = [_become_native(model, scan, constants) for scan in scans]
    if any(found):
        common.RemoveUnusedNodesPass()(model)
        common.DeduplicateInitializersPass(sys.maxsize)(model)  # weights that two scans share
    return sum(found)


def _become_native(model: ir.Model, scan: ir.Node, constants: Known) -> bool:
    try:
        step = read_step(scan, constants)
        native = _match(step)
    except Opaque:
        return False
    _replace(model, scan, step, native)
    return True


def _match(step: Step) -> _Native:
    """The operator that computes the step, and whose output is the Scan's.

    Raises:
        Opaque: none does.
    """
    for match in _MATCHES.get(len(step.states), ()):
        with suppress(Opaque):
            native = match(step)
            if all(output == step.next[native.states[0]] for output in step.outputs):
                return native
    raise Opaque


def _rnn(step: Step) -> _Native:
    """h' = f(x W + h R + b); f is tanh, relu, or nothing."""
    (h,), (new,) = step.states, step.next
    for function, attributes in _ACTIVATIONS.items():
        for inner in new.inners(function):
            if inner.applied(function) == new:
                return _Native("RNN", [_rnn_gate(inner, step, h)], attributes=attributes)
    return _Native("RNN", [_rnn_gate(new, step, h)], attributes=_LINEAR)


def _rnn_gate(inner: Vector, step: Step, h: Vector) -> _Gate:
    gate = _gate(inner, step, h)
    if h.width > _WIDEST_DIAGONAL and np.array_equal(gate.r, np.diag(gate.r.diagonal())):
        raise Opaque
    return gate


def _gru(step: Step) -> _Native:
    """h' = z h + (1 - z) tanh(n)."""
    (h,), (new,) = step.states, step.next
    for (z, update), n in product(_gates(new), new.inners("Tanh")):
        if z * h + z.complement() * n.applied("Tanh") == new:
            is_before = any(isinstance(leaf, Vector) for leaf in n.linear)
            reset, candidate = (_reset_before if is_before else _reset_after)(n, step, h)
            gates = [_gate(update, step, h), _gate(reset, step, h), candidate]
            return _Native("GRU", gates, attributes={"linear_before_reset": int(not is_before)})
    raise Opaque


def _reset_before(n: Vector, step: Step, h: Vector) -> tuple[Vector, _Gate]:
    """n = x W + (r h) R + b: what r is the sigmoid of, and the gate n."""
    mixed = {leaf: matrix for leaf, matrix in n.linear.items() if isinstance(leaf, Vector)}
    (leaf, matrix), *more = mixed.items()
    state = _leaf(h)
    for inner in leaf.inners("Sigmoid"):
        if inner.applied("Sigmoid") * h == leaf and not more and state not in n.linear:
            frames = {leaf: matrix for leaf, matrix in n.linear.items() if leaf not in mixed}
            return inner, _gate(Vector(n.bias, frames | {state: matrix}, n.products), step, h)
    raise Opaque


def _reset_after(n: Vector, step: Step, h: Vector) -> tuple[Vector, _Gate]:
    """n = x W + r (h R + d) + b: what r is the sigmoid of, and the gate n."""
    frames = Vector(n.bias, n.linear)
    for inner in n.inners("Sigmoid"):
        recurrent = (n - frames).over(Factor("Sigmoid", inner))
        if _leaf(h) not in frames.linear and set(recurrent.linear) <= {_leaf(h)}:
            outside, inside = _gate(frames, step, h), _gate(recurrent, step, h)
            return inner, _Gate(outside.w, inside.r, outside.b, inside.b)
    raise Opaque


def _lstm(step: Step) -> _Native:
    """c' = f c + i tanh(g) and h' = o tanh(c'); either state may come first."""
    with suppress(Opaque):
        return _lstm_of(step, 0, 1)
    return _lstm_of(step, 1, 0)


def _lstm_of(step: Step, h: int, c: int) -> _Native:
    new = step.next[c]
    o, o_peephole = _output_gate(step.next[h], new)
    for (f, forget), (i, enter), g in product(_gates(new), _gates(new), new.inners("Tanh")):
        if f * step.states[c] + i * g.applied("Tanh") == new:
            enter, i_peephole = _without_peephole(enter, step.states[c])
            forget, f_peephole = _without_peephole(forget, step.states[c])
            gates = [_gate(gate, step, step.states[h]) for gate in (enter, o, forget, g)]
            peepholes = [i_peephole, o_peephole, f_peephole]
            return _Native("LSTM", gates, (h, c), peepholes=peepholes if np.any(peepholes) else ())
    raise Opaque


def _output_gate(new_h: Vector, new_c: Vector) -> tuple[Vector, Array]:
    """What o is the sigmoid of, and its peephole: it sees the new c."""
    for inner in new_h.inners("Sigmoid"):
        if inner.applied("Sigmoid") * new_c.applied("Tanh") == new_h:
            some = next(iter(new_c.products), ())
            peephole = inner.products.get(some, np.zeros(inner.width)) / new_c.products[some]
            return inner - new_c.scaled(peephole), peephole
    raise Opaque


def _without_peephole(inner: Vector, c: Vector) -> tuple[Vector, Array]:
    """What is left of a gate without its peephole, and the peephole: it sees the old c."""
    matrix = inner.linear.get(_leaf(c), np.zeros((c.width, c.width)))
    peephole = matrix.diagonal()
    if np.any(matrix != np.diag(peephole)):
        raise Opaque
    return inner - c.scaled(peephole), peephole


def _gates(vector: Vector) -> Iterator[tuple[Vector, Vector]]:
    """Each sigmoid among the factors, and one minus it; with what each is the sigmoid of."""
    for inner in vector.inners("Sigmoid"):
        gate = inner.applied("Sigmoid")
        yield gate, inner
        yield gate.complement(), -inner


def _gate(inner: Vector, step: Step, h: Vector) -> _Gate:
    if inner.products or not set(inner.linear) <= {*step.frames, _leaf(h)}:
        raise Opaque
    zeros = np.zeros(inner.width)
    w = [_matrix(inner, frame, width_of(frame)) for frame in step.frames]
    return _Gate(np.concatenate(w), _matrix(inner, _leaf(h), h.width), inner.bias, zeros)


def _matrix(inner: Vector, leaf: Leaf, width: int) -> Array:
    return inner.linear.get(leaf, np.zeros((width, inner.width)))


def _leaf(state: Vector) -> Leaf:
    return next(iter(state.linear))


_MATCHES: Mapping[int, Sequence[Callable[[Step], _Native]]] = {1: (_rnn, _gru), 2: (_lstm,)}


def _replace(model: ir.Model, scan: ir.Node, step: Step, native: _Native) -> None:
    tape = ir.tape.Tape()
    prefix = f"val_{scan.name}"  # as torch names weights it folds: `tidy` names them by the node
    weights = [
        tape.initializer(ir.tensor(array), f"{prefix}.{letter}")
        for letter, array in _pack(native).items()
    ]
    axes = [tape.initializer(ir.tensor([axis]), f"{prefix}.axis{axis}") for axis in range(2)]
    hidden_size = len(native.gates[0].b)
    time, batch, _ = _dims(step.sources[0])
    x = _frames(tape, step)
    starts = [
        _typed(tape.op("Unsqueeze", [scan.inputs[i], axes[0]]), 1, batch, hidden_size)
        for i in native.states
    ]
    y, *ends = tape.op_multi_out(
        native.operator,
        [x, *weights[:3], None, *starts, *weights[3:]],
        {"hidden_size": hidden_size, **native.attributes},
        num_outputs=1 + len(starts),
        metadata_props=dict(scan.metadata_props),
    )
    _typed(y, time, 1, batch, hidden_size)
    values = [tape.op("Squeeze", [y, axes[1]]) for _ in scan.outputs]
    for i, end in zip(native.states, ends, strict=True):
        values[i] = tape.op("Squeeze", [_typed(end, 1, batch, hidden_size), axes[0]])
    _swap(model.graph, scan, tape, values)


def _frames(tape: ir.tape.Tape, step: Step) -> ir.Value:
    """The frames of all inputs side by side, `[time, batch, features]`."""
    if len(step.sources) == 1:
        return step.sources[0]
    width = sum(width_of(frame) for frame in step.frames)
    return _typed(tape.op("Concat", step.sources, {"axis": 2}), *_dims(step.sources[0])[:2], width)


def _dims(value: ir.Value) -> Sequence[int | ir.SymbolicDim]:
    assert value.shape is not None  # torch gives every value of a main graph its shape
    return tuple(value.shape)


def _typed(value: ir.Value, *dims: int | ir.SymbolicDim) -> ir.Value:
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(dims)
    return value


def _swap(graph: ir.Graph, scan: ir.Node, tape: ir.tape.Tape, values: Sequence[ir.Value]) -> None:
    """Put what the tape recorded in the place of the Scan, `values` in the place of its outputs."""
    for value in tape.initializers:
        graph.register_initializer(value)
    outputs = [output for node in tape.nodes for output in node.outputs]
    for i, output in enumerate(outputs):
        output.name = f"val_{scan.name}.{i}"  # names onnx-ir finds may be taken in a body
    for node in scan.attributes["body"].as_graph():
        for i in range(len(node.inputs)):
            node.replace_input_with(i, None)  # else the body keeps using the weights it was given
    ir.convenience.replace_nodes_and_values(graph, scan, [scan], tape.nodes, scan.outputs, values)


def _pack(native: _Native) -> dict[str, npt.NDArray[np.float32]]:
    """W, R and B as the operator takes them, and P where there are peepholes."""
    gates = native.gates
    packed = {
        "W": np.concatenate([gate.w.T for gate in gates]),
        "R": np.concatenate([gate.r.T for gate in gates]),
        "B": np.concatenate([gate.b for gate in gates] + [gate.recurrent_bias for gate in gates]),
    }
    if native.peepholes:
        packed["P"] = np.concatenate(native.peepholes)
    return {name: array[None].astype(np.float32) for name, array in packed.items()}
