"""Makes every shape of a streaming graph a number, for runtimes that want that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from rnnx_exporters.wire_shapes import forget_shapes
from rnnx_runtime.contract import Contract, Dims, Port, State

_BATCH = 1
_MOST_SIZES = 64  # numbers in a tensor of sizes


def fix_shapes(model: ir.Model, contract: Contract) -> Contract:
    """Give one sequence and `contract.chunk` frames to a graph in place; its contract then."""
    chunk = contract.chunk or 1
    fixed = replace(
        contract,
        inputs=tuple(_fixed(port, chunk) for port in contract.inputs),
        outputs=tuple(_fixed(port, chunk) for port in contract.outputs),
        masks=tuple(_fixed(port, chunk) for port in contract.masks),
        states=tuple(replace(state, dims=_one(state.dims)) for state in contract.states),
    )
    dims = _by_name((*fixed.inputs, *fixed.outputs, *fixed.masks), fixed.states)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(dims[str(value.name)])
    _infer(model)
    # Sizes, and what is computed from them; weights that are kept small stay so.
    while optimizer.fold_constants(model, input_size_limit=_MOST_SIZES).modified:
        _infer(model)
    return fixed


def _infer(model: ir.Model) -> None:
    """Infer all shapes anew: what was known is of other sizes."""
    common.RemoveUnusedNodesPass()(model)
    for value in model.graph.initializers.values():
        value.shape = (
            None if value.const_value is None else ir.Shape(value.const_value.numpy().shape)
        )
    forget_shapes(model)
    common.ShapeInferencePass()(model)


def _fixed(port: Port, chunk: int) -> Port:
    """The port with the frames of one call; frames wait in outputs, too."""
    here = int(chunk / port.stride)
    dims = tuple(
        here if axis == port.time_axis else size for axis, size in enumerate(_one(port.dims))
    )
    return replace(port, dims=dims)


def _one(dims: Dims) -> Dims:
    """The shape with one sequence."""
    return tuple(_BATCH if isinstance(dim, str) else dim for dim in dims)


def _by_name(ports: Iterable[Port], states: Iterable[State]) -> dict[str, Dims]:
    named = {port.name: port.dims for port in ports}
    for state in states:
        named |= {state.input_name: state.dims, state.output_name: state.dims}
    return named
