"""Carries recurrent layers through torch.export, and turns each into native ONNX operators.

torch.export would unroll `nn.RNN`, `nn.GRU` and `nn.LSTM` or freeze their length. While `Recurrent`
is active, every call of torch's recurrent functions becomes one custom operator, `rnnx::gru` say,
which has a real kernel, keeps batch and time free, and is opaque to the exporter. `translations()`
turns each into one native ONNX node for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import opset18
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rnnx_exporters.cells import CELLS, LAYER_KEY, CellSpec
from rnnx_runtime.errors import ExportError

_VF = torch._C._VariableFunctions
op: Any = opset18  # its annotations do not know the Python constants it takes

_SCHEMA = (
    "(Tensor x, Tensor[] states, Tensor[] weights, bool has_biases, int num_layers,"
    " bool bidirectional, bool batch_first) -> ({})"
)


class Recurrent(TorchFunctionMode):
    """Within it, torch's recurrent functions run as rnnx's custom operators, in this thread only.

    Attributes:
        layers: how many ONNX nodes the calls seen so far must become.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _VF._pack_padded_sequence:
            raise _packed("the model packs its sequences")
        cell = _CELL_OF.get(func)
        if cell is None:
            return func(*args, **(kwargs or {}))
        return self._call(cell, *args, **(kwargs or {}))

    def _call(
        self,
        cell: CellSpec,
        x: Tensor,
        hx: Any,
        params: Any,
        has_biases: Any,
        num_layers: Any,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> tuple[Tensor, ...]:
        if not isinstance(params, list | tuple):
            raise _packed(f"a packed sequence reaches {cell.function}")
        states = list(hx) if cell.has_cell_state else [hx]
        _refuse_projection(cell, params)
        self.layers += num_layers
        options = (has_biases, num_layers, bidirectional, batch_first)
        y, *finals = _operator(cell)(x, states, list(params), *options)
        return (y, *finals)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: each custom operator and the function that writes it in ONNX."""
    return {_operator(cell).default: _translation(cell) for cell in CELLS}


def _operator(cell: CellSpec) -> Any:
    return getattr(torch.ops.rnnx, cell.function)


def _define(cell: CellSpec) -> None:
    """Register the custom operator `rnnx::<function>` of a cell."""
    function = getattr(_VF, cell.function)

    def kernel(
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        hx = list(states) if cell.has_cell_state else states[0]
        options = (has_biases, num_layers, 0.0, False, bidirectional, batch_first)
        return tuple(out.clone() for out in function(x, hx, list(weights), *options))

    def fake(
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        y = x.new_empty(x.shape[0], x.shape[1], width)
        return (y, *(torch.empty_like(state) for state in states))

    returns = ", ".join(["Tensor"] * (1 + cell.num_states))
    operator = torch.library.custom_op(
        f"rnnx::{cell.function}", kernel, mutates_args=(), schema=_SCHEMA.format(returns)
    )
    operator.register_fake(fake)


_CELL_OF: dict[Any, CellSpec] = {getattr(_VF, cell.function): cell for cell in CELLS}


def _packed(what: str) -> ExportError:
    return ExportError(
        f"{what}, which is not supported yet",
        hint="Give the recurrent layer padded tensors of [batch, time, features].",
    )


def _refuse_projection(cell: CellSpec, params: Sequence[Tensor]) -> None:
    rows, columns = params[1].shape
    if rows != columns * len(cell.gates):
        raise ExportError(
            f"an LSTM has proj_size={columns}; projections are not supported yet",
            hint="Use an LSTM without proj_size followed by a Linear layer.",
        )


def _translation(cell: CellSpec) -> Callable[..., Any]:
    def translate(
        x: Any,
        states: Any,
        weights: Any,
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        directions = 2 if bidirectional else 1
        per_layer = directions * (4 if has_biases else 2)
        finals = []
        x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x  # onnxruntime wants time first
        for layer in range(num_layers):
            first = layer * directions
            starts = [op.Slice(s, [first], [first + directions], [0]) for s in states]
            own = weights[layer * per_layer : (layer + 1) * per_layer]
            y, *ends = _emit_layer(cell, x, starts, own, has_biases, directions, layer)
            finals.append(ends)
            is_last = layer == num_layers - 1
            x = _merge_directions(y, directions, batch_first=batch_first and is_last)
        return (x, *(_stack(ends) for ends in zip(*finals, strict=True)))

    return translate


def _emit_layer(
    cell: CellSpec,
    x: Any,
    starts: Sequence[Any],
    weights: Sequence[Any],
    has_biases: bool,
    directions: int,
    layer: int,
) -> Any:
    """One native node: `x` [time, batch, features] to `Y` [time, directions, batch, hidden]."""
    hidden_size = int(weights[1].shape[1])
    rows = _row_order(cell, hidden_size)
    per_direction = len(weights) // directions
    groups = [weights[i : i + per_direction] for i in range(0, len(weights), per_direction)]
    w = _stack([op.Unsqueeze(op.Gather(group[0], rows), [0]) for group in groups])
    r = _stack([op.Unsqueeze(op.Gather(group[1], rows), [0]) for group in groups])
    b = _stack([_bias(group, rows) for group in groups]) if has_biases else None
    outputs = getattr(op, cell.operator)(
        x, w, r, b, None, *starts, hidden_size=hidden_size, **_attributes(cell, directions)
    )
    outputs[0].producer().metadata_props[LAYER_KEY] = str(layer)
    return outputs


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


for _cell in CELLS:
    _define(_cell)
