"""What the recurrent layers of an artifact meet on real sequences: the second moments of it."""

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
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.proof import session_of
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_runtime.contract import Contract

Array = npt.NDArray[Any]


def hessians(
    path: str | os.PathLike[str], contract: Contract, runs: Sequence[Feeds]
) -> dict[str, Array]:
    """For each weight W and R of a recurrent layer the sum of `x.T @ x` over what it multiplies.

    Args:
        path: the artifact, in float32.
        contract: its contract.
        runs: sequences as it will see them, arrays by input name.

    Returns:
        float64 `[features, features]` by names as `layer.0.W` and `layer.0.R`; 0 is the direction.
    """
    model = load_graph(path)
    nodes = [node for node in recurrent_nodes(model) if node.graph is model.graph]
    _show(model, nodes)
    session, found = session_of(model), defaultdict[str, Array](lambda: np.zeros(()))
    names = [name for node in nodes for name in _wires(node)]
    for feeds in runs:
        values = session.run(names, {**feeds, **_starts(contract, feeds)})
        wires = dict(zip(names, values, strict=True))
        for name, x in _met(nodes, wires):
            found[name] = found[name] + x.T @ x
    return dict(found)


def _wires(node: ir.Node) -> tuple[str, str]:
    """What a recurrent node takes, and what it gives frame by frame."""
    return f"{node.name}.observed.x", f"{node.name}.observed.y"


def _show(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Make both outputs of the graph."""
    for node in nodes:
        node.outputs[0].name = node.outputs[0].name or f"{node.name}.Y"
        for value, name in zip((node.inputs[0], node.outputs[0]), _wires(node), strict=True):
            shown = ir.node("Identity", [value])
            shown.outputs[0].name, shown.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
            model.graph.append(shown)
            model.graph.outputs.append(shown.outputs[0])
    model.graph.sort()


def _starts(contract: Contract, feeds: Feeds) -> dict[str, Array]:
    """The states before the first frame, and masks of frames that are all of the sequence."""
    port = next(port for port in contract.inputs if port.time_axis is not None)
    batch = 1 if port.batch_axis is None else feeds[port.name].shape[port.batch_axis]
    frames = int(feeds[port.name].shape[port.time_axis or 0] * port.stride)
    masks = {p.name: np.ones(p.shape(batch=1, frames=p.here(frames)), bool) for p in contract.masks}
    return masks | {state.input_name: state.start(batch=batch) for state in contract.states}


def _met(nodes: Sequence[ir.Node], wires: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The rows `[frames, features]` that each weight multiplies: frames, or states before them."""
    for node in nodes:
        x, y = (wires[name].astype(np.float64) for name in _wires(node))
        for place, backward in enumerate(directions_of(node)):
            before = y[1:, place] if backward else y[:-1, place]  # the first is a start
            yield f"{node.name}.{place}.W", x.reshape(-1, x.shape[-1])
            yield f"{node.name}.{place}.R", before.reshape(-1, y.shape[-1])
