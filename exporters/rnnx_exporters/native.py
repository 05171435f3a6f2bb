"""Writes rnnx's custom operators in ONNX: one native RNN, GRU or LSTM node for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset18

from rnnx_exporters import packed
from rnnx_exporters.cells import CELLS, LAYER_KEY, CellSpec
from rnnx_exporters.recurrent import operator

op: Any = opset18  # its annotations do not know the Python constants it takes


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: each custom operator and the function that writes it in ONNX."""
    cells = {operator(cell).default: _translation(cell) for cell in CELLS}
    return cells | packed.translations()


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's weights, a list for each direction.

    Attributes:
        index: its place in the stack.
        weights: torch's W, R, biases and projection.
        inverses: the pseudo-inverse of the projection, where there is one.
    """

    index: int
    weights: Sequence[Sequence[Any]]
    inverses: Sequence[Any]
    has_biases: bool

    @property
    def directions(self) -> int:
        return len(self.weights)


def _translation(cell: CellSpec) -> Callable[..., Any]:
    def translate(
        x: Any,
        lengths: Any,
        states: Any,
        weights: Any,
        inverses: Any,
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        directions = 2 if bidirectional else 1
        finals = []
        x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x  # onnxruntime wants time first
        lengths = None if lengths is None else op.Cast(lengths, to=ir.DataType.INT32)
        groups = _split(weights, num_layers * directions)
        for index in range(num_layers):
            own = slice(index * directions, (index + 1) * directions)
            layer = _Layer(index, groups[own], inverses[own], has_biases)
            starts = [op.Slice(state, [own.start], [own.stop], [0]) for state in states]
            y, *ends = _emit_layer(cell, layer, x, lengths, starts)
            finals.append(_keep_empty(lengths, ends, starts))
            is_last = index == num_layers - 1
            x = _merge_directions(y, directions, batch_first=batch_first and is_last)
        return (x, *(_stack(ends) for ends in zip(*finals, strict=True)))

    return translate


def _emit_layer(
    cell: CellSpec, layer: _Layer, x: Any, lengths: Any, starts: Sequence[Any]
) -> Sequence[Any]:
    """One native node: `x` [time, batch, features] to `Y` [time, directions, batch, hidden]."""
    hidden_size = int(layer.weights[0][1].shape[0]) // len(cell.gates)
    rows = _row_order(cell, hidden_size)
    w = _stack([op.Unsqueeze(op.Gather(group[0], rows), [0]) for group in layer.weights])
    r = _stack([op.Unsqueeze(op.Gather(group[1], rows), [0]) for group in layer.weights])
    b = _stack([_bias(group, rows) for group in layer.weights]) if layer.has_biases else None
    if layer.inverses:
        return _emit_projected(cell, layer, x, lengths, starts, (w, r, b))
    return _emit_node(cell, layer, (x, w, r, b, lengths, *starts), hidden_size)


def _emit_node(
    cell: CellSpec, layer: _Layer, inputs: tuple[Any, ...], hidden_size: int
) -> Sequence[Any]:
    attributes = _attributes(cell, layer.directions)
    outputs: Sequence[Any] = getattr(op, cell.operator)(
        *inputs, hidden_size=hidden_size, **attributes
    )
    outputs[0].producer().metadata_props[LAYER_KEY] = str(layer.index)
    return outputs


def _emit_projected(
    cell: CellSpec,
    layer: _Layer,
    x: Any,
    lengths: Any,
    starts: Sequence[Any],
    weights: tuple[Any, Any, Any],
) -> Sequence[Any]:
    """An LSTM with a projection P, `h = P u`, as an LSTM over `u` and a product behind it.

    `R h = (R P) u`, so the recurrence runs on `u` with the weight `R P`; it starts at the `u` of
    least norm whose projection is `h`.
    """
    w, r, b = weights
    hidden_size = int(layer.inverses[0].shape[0])
    down = _stack([op.Unsqueeze(op.Transpose(g[-1]), [0]) for g in layer.weights])
    up = _stack([op.Unsqueeze(op.Transpose(inverse), [0]) for inverse in layer.inverses])
    r = op.MatMul(r, op.Transpose(down, perm=[0, 2, 1]))
    inputs = (x, w, r, b, lengths, op.MatMul(starts[0], up), starts[1])
    y, u, c = _emit_node(cell, layer, inputs, hidden_size)
    return op.MatMul(y, down), op.MatMul(u, down), c


def _split(values: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """`values` in `count` groups of equal size."""
    size = len(values) // count
    return [values[i : i + size] for i in range(0, len(values), size)]


def _keep_empty(lengths: Any, ends: Sequence[Any], starts: Sequence[Any]) -> Sequence[Any]:
    """The states of sequences of length 0 stay as they were; onnxruntime would make them zeros."""
    if lengths is None:
        return ends
    some = op.Unsqueeze(
        op.Greater(lengths, op.Constant(value=ir.tensor([0], ir.DataType.INT32))), [0, 2]
    )
    return [op.Where(some, end, start) for end, start in zip(ends, starts, strict=True)]


def _row_order(cell: CellSpec, hidden_size: int) -> Any:
    """The rows of torch's stacked gates in ONNX's order, as a constant."""
    blocks = [np.arange(gate * hidden_size, (gate + 1) * hidden_size) for gate in cell.gates]
    return op.Constant(value_ints=np.concatenate(blocks).tolist())


def _bias(group: Sequence[Any], rows: Any) -> Any:
    biases = [op.Gather(bias, rows) for bias in group[2:4]]
    return op.Unsqueeze(op.Concat(*biases, axis=0), [0])


def _attributes(cell: CellSpec, directions: int) -> dict[str, Any]:
    attributes = dict(cell.attributes)
    attributes["direction"] = "bidirectional" if directions == 2 else "forward"
    if cell.activation is not None:
        attributes["activations"] = [cell.activation] * directions
    return attributes


def _merge_directions(y: Any, directions: int, *, batch_first: bool) -> Any:
    """`Y` [time, directions, batch, hidden] as torch gives it, the directions side by side."""
    if directions == 1:
        y = op.Squeeze(y, [1])
        return op.Transpose(y, perm=[1, 0, 2]) if batch_first else y
    y = op.Transpose(y, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3])
    return op.Reshape(y, [0, 0, -1])


def _stack(values: Sequence[Any]) -> Any:
    return op.Concat(*values, axis=0) if len(values) > 1 else values[0]
