"""What the layers of an artifact meet on real sequences: the second moments of it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization.calibration import Feeds
from rnnx.quantization.gates import directions_of
from rnnx.quantization.weights import INITIAL_H, RECURRENT, Weight
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.proof import session_of
from rnnx_runtime.contract import Contract

Array = npt.NDArray[Any]


def hessians(
    path: str | os.PathLike[str], contract: Contract, runs: Sequence[Feeds]
) -> dict[str, Array]:
    """For each weight of a recurrent or linear layer the sum of `x.T @ x` over what it multiplies.

    Args:
        path: the artifact, in float32.
        contract: its contract.
        runs: sequences as it will see them, arrays by input name.

    Returns:
        float64 `[features, features]` by names as `layer.0.W` and `layer.0.R`, 0 for the direction;
        of a linear layer by its node's name.
    """
    model = load_graph(path)
    nodes = [node for node in model.graph if _is_linear(node) or node.op_type in RECURRENT]
    shown = {name: value for node in nodes for name, value in _wires(node).items()}
    _show(model, shown)
    session, found = session_of(model), defaultdict[str, Array](lambda: np.zeros(()))
    names = list(shown)
    for feeds in runs:
        values = session.run(names, {**feeds, **_starts(contract, feeds)})
        wires = dict(zip(names, values, strict=True))
        for name, x in _met(nodes, wires):
            found[name] = found[name] + x.T @ x
    return dict(found)


def names_of(weight: Weight) -> list[str]:
    """The names by which `hessians` gives what a weight meets, one for each direction."""
    node = weight.nodes[0]
    if node.op_type not in RECURRENT:
        return [str(node.name)]
    letter = "W" if node.inputs[1] is weight.value else "R"
    return [f"{node.name}.{place}.{letter}" for place in range(len(directions_of(node)))]


def _is_linear(node: ir.Node) -> bool:
    """Whether a node multiplies what it takes with one matrix of weights."""
    known = node.op_type in ("MatMul", "Gemm") and node.domain in ("", "ai.onnx")
    return known and not (node.inputs[0] is None or node.inputs[0].is_initializer())


def _wires(node: ir.Node) -> dict[str, ir.Value]:
    """What a node takes and, of a recurrent one, gives frame by frame."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if node.op_type not in RECURRENT:
        return {f"{node.name}.observed.x": x}
    y.name = y.name or f"{node.name}.Y"
    start = node.inputs[INITIAL_H] if len(node.inputs) > INITIAL_H else None
    wires = {"x": x, "y": y} | ({} if start is None else {"start": start})
    return {f"{node.name}.observed.{name}": value for name, value in wires.items()}


def _show(model: ir.Model, wires: Mapping[str, ir.Value]) -> None:
    """Make them outputs of the graph."""
    for name, value in wires.items():
        shown = ir.node("Identity", [value])
        shown.outputs[0].name, shown.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.append(shown)
        model.graph.outputs.append(shown.outputs[0])
    model.graph.sort()


def _starts(contract: Contract, feeds: Feeds) -> dict[str, Array]:
    """The states before the first frame, and masks of frames that are all of the sequence."""
    if not contract.states:
        return {}
    port = next(port for port in contract.inputs if port.time_axis is not None)
    batch = 1 if port.batch_axis is None else feeds[port.name].shape[port.batch_axis]
    frames = int(feeds[port.name].shape[port.time_axis or 0] * port.stride)
    masks = {p.name: np.ones(p.shape(batch=1, frames=p.here(frames)), bool) for p in contract.masks}
    return masks | {state.input_name: state.start(batch=batch) for state in contract.states}


def _met(nodes: Sequence[ir.Node], wires: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The rows `[frames, features]` that each weight multiplies: frames, or states before them."""
    for node in nodes:
        x = wires[f"{node.name}.observed.x"].astype(np.float64)
        rows = x.reshape(-1, x.shape[-1])
        if node.op_type not in RECURRENT:
            yield str(node.name), rows
            continue
        y = wires[f"{node.name}.observed.y"].astype(np.float64)
        start = wires.get(f"{node.name}.observed.start", np.zeros_like(y[0])).astype(np.float64)
        for place, backward in enumerate(directions_of(node)):
            own = y[1:, place] if backward else y[:-1, place]
            before = np.concatenate([start[None, place], own])
            yield f"{node.name}.{place}.W", rows
            yield f"{node.name}.{place}.R", before.reshape(-1, y.shape[-1])
