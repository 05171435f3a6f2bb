"""Carries recurrent layers through torch.export, and turns each into native ONNX operators.

torch.export would unroll `nn.RNN`, `nn.GRU` and `nn.LSTM` or freeze their length. While `Recurrent`
is active, every call of torch's recurrent functions becomes one custom operator, `rnnx::gru` say,
which has a real kernel, keeps batch and time free, and is opaque to the exporter. `native.py` turns
each into one native ONNX node for each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils import rnn
from torch.overrides import TorchFunctionMode

from rnnx_exporters import pooling
from rnnx_exporters.cells import CELLS, CellSpec
from rnnx_exporters.packed import PackedSequences, fold
from rnnx_exporters.projection import inverse_name, run_scans, scan_is_faster

_VF = torch._C._VariableFunctions
_check: Any = torch._check

_ACTIVE: ContextVar[Recurrent | None] = ContextVar("rnnx export", default=None)

_SCHEMA = (
    "(Tensor x, Tensor? lengths, Tensor[] states, Tensor[] weights, Tensor[] inverses,"
    " bool has_biases, int num_layers, bool bidirectional, bool batch_first) -> ({})"
)


class Recurrent(TorchFunctionMode):
    """Within it, torch's recurrent functions run as rnnx's custom operators, in this thread only.

    So does the pool that torch cannot capture (`pooling.py`).

    Args:
        module: the network that is exported, its projections inverted (`invert_projections`).

    Attributes:
        layers: how many ONNX nodes the calls seen so far must become.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.layers = 0
        lstms = [layer for layer in module.modules() if isinstance(layer, torch.nn.LSTM)]
        self._projected = [layer for layer in lstms if layer.proj_size]
        self._packed = PackedSequences()
        self._handlers = (
            pooling.handlers()
            | self._packed.handlers()
            | self._cell_handlers()
            | {getattr(_VF, cell.function): partial(self._call, cell) for cell in CELLS}
        )

    def __enter__(self) -> Self:
        self._token = _ACTIVE.set(self)
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        _ACTIVE.reset(self._token)

    def run_cell(self, layer: RNNCellBase, state: Any, x: Tensor, dim: int) -> tuple[Any, Tensor]:
        """Run one of torch's cells over the frames of `x`, as the layer of one such cell."""
        cell = _cell_of(layer)
        weights = [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
        weights = weights if layer.bias else weights[:2]
        states = [s.unsqueeze(0) for s in (state if cell.has_cell_state else [state])]
        hx = states if cell.has_cell_state else states[0]
        options = (bool(layer.bias), 1, 0.0, False, False, dim == 1)
        y, *finals = self._run(cell, x, None, hx, weights, *options)
        ends = tuple(final.squeeze(0) for final in finals)
        return (ends if cell.has_cell_state else ends[0]), y

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._handlers.get(func, func)(*args, **(kwargs or {}))

    def _call(self, cell: CellSpec, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
        """Called as torch's function is: (x, hx, ...), or packed (data, batch_sizes, hx, ...)."""
        found = self._packed.find(args[0])
        if found is None:
            return self._run(cell, x, None, *args)
        y, *finals = self._run(cell, found.unfold(x), found.lengths, *args[1:])
        return (fold(y), *finals)

    def _run(
        self,
        cell: CellSpec,
        x: Tensor,
        lengths: Tensor | None,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> tuple[Tensor, ...]:
        states = list(hx) if cell.has_cell_state else [hx]
        for state in states:  # torch's own check is left out (`_unchecked`)
            _check(state.shape[1] == x.shape[0 if batch_first else 1])
        inverses = _pseudo_inverses(self._projected, params)
        if inverses and lengths is None and scan_is_faster(*inverses[0].shape):
            return run_scans(x, states, params, num_layers, bidirectional, batch_first)
        self.layers += num_layers
        options = (inverses, has_biases, num_layers, bidirectional, batch_first)
        result: tuple[Tensor, ...] = operator(cell)(x, lengths, states, list(params), *options)
        return result

    def _cell_handlers(self) -> dict[Any, Any]:
        """For torch's function of each cell, `torch.gru_cell` say, what runs instead."""
        return {
            getattr(_VF, f"{cell.function}_cell"): partial(self._call_cell, cell) for cell in CELLS
        }

    def _call_cell(self, cell: CellSpec, x: Tensor, hx: Any, *weights: Tensor | None) -> Any:
        """One frame is a sequence of one: `x` [batch, features], states [batch, hidden_size]."""
        params = [weight for weight in weights if weight is not None]
        states = [state.unsqueeze(0) for state in (hx if cell.has_cell_state else [hx])]
        options = (len(params) == 4, 1, 0.0, False, False)
        hx = states if cell.has_cell_state else states[0]
        _, *finals = self._run(cell, x.unsqueeze(0), None, hx, params, *options)
        ends = tuple(final.squeeze(0) for final in finals)
        return ends if cell.has_cell_state else ends[0]


def active() -> Recurrent | None:
    """The export that runs in this thread, if one does."""
    return _ACTIVE.get()


def _cell_of(layer: RNNCellBase) -> CellSpec:
    name = {torch.nn.GRUCell: "gru", torch.nn.LSTMCell: "lstm"}.get(type(layer))
    name = name or f"rnn_{layer.nonlinearity}"
    return next(cell for cell in CELLS if cell.function == name)


def operator(cell: CellSpec) -> Any:
    """The custom operator of a cell."""
    return getattr(torch.ops.rnnx, cell.function)


def _define(cell: CellSpec) -> None:
    """Register the custom operator `rnnx::<function>` of a cell."""
    function = getattr(_VF, cell.function)

    def kernel(
        x: Tensor,
        lengths: Tensor | None,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        inverses: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        options = (list(weights), has_biases, num_layers, 0.0, False, bidirectional)
        if lengths is not None:
            return _run_packed(cell, x, lengths, states, options)
        hx = list(states) if cell.has_cell_state else states[0]
        return tuple(out.clone() for out in function(x, hx, *options, batch_first))

    def fake(
        x: Tensor,
        lengths: Tensor | None,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        inverses: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        y = x.new_empty(x.shape[0], x.shape[1], width)
        return (y, *(torch.empty_like(state) for state in states))

    returns = ", ".join(["Tensor"] * (1 + cell.num_states))
    schema = _SCHEMA.format(returns)
    name = f"rnnx::{cell.function}"
    torch.library.custom_op(name, kernel, mutates_args=(), schema=schema).register_fake(fake)


def _run_packed(
    cell: CellSpec, x: Tensor, lengths: Tensor, states: Sequence[Tensor], options: tuple[Any, ...]
) -> tuple[Tensor, ...]:
    """The real function over padded sequences `x` [time, batch, features] of any lengths."""
    sequence = rnn.pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    order, back = sequence.sorted_indices, sequence.unsorted_indices
    assert order is not None
    assert back is not None
    ordered = [state.index_select(1, order) for state in states]
    hx = ordered if cell.has_cell_state else ordered[0]
    y, *finals = getattr(_VF, cell.function)(sequence.data, sequence.batch_sizes, hx, *options)
    padded, _ = rnn.pad_packed_sequence(sequence._replace(data=y), total_length=x.shape[0])
    return (padded, *(final.index_select(1, back) for final in finals))


def _pseudo_inverses(layers: Iterable[torch.nn.LSTM], params: Sequence[Tensor]) -> list[Tensor]:
    """For the weights of a projected LSTM, the inverses of its projections."""
    return [
        getattr(layer, inverse_name(name))
        for param in params
        for layer in layers
        for name in layer._flat_weights_names
        if name.startswith("weight_hr") and getattr(layer, name) is param
    ]


for _cell in CELLS:
    _define(_cell)
