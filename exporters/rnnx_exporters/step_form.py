"""The step form of a streaming graph: one sequence, one step, without what only moves axes.

With one sequence and one frame nearly all axes have length 1, so a Squeeze, Reshape or Transpose
leaves the memory as it is: the same numbers in the same order under another shape. Whoever reads
them reads what they were made of, and the operator is left out. A Scan over one frame is its body.
What the graph takes and gives has the shape that is handiest inside; the same memory is bound under
that.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters.fixed_shapes import fix_shapes
from rnnx_exporters.proof import session_of
from rnnx_exporters.scan_once import run_once
from rnnx_exporters.wire_shapes import Shapes
from rnnx_runtime.contract import Contract
from rnnx_runtime.samples import random_inputs

_RESHAPING = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_RECURRENT = ("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN")

Shape = tuple[int, ...]


def step_form(model: ir.Model, contract: Contract) -> ir.Model:
    """The streaming graph `model` for one sequence and `chunk_multiple` frames, once under way.

    Its inputs and outputs have the names and the memory of those of `model`, each under a shape of
    its own. The masks are gone: inside a sequence all frames are of it.
    """
    step = model.clone()
    _unmask(step, contract)
    fix_shapes(step, dataclasses.replace(contract, chunk=contract.chunk_multiple, masks=()))
    shapes = _shapes(step, contract)
    if run_once(step.graph, shapes):
        shapes = _shapes(step, contract)
    wires = _Wires(step, shapes)
    wires.choose_input_shapes()
    wires.read_origins()
    wires.give_origins()
    common.RemoveUnusedNodesPass()(step)
    step.graph.sort()
    return step


def _unmask(step: ir.Model, contract: Contract) -> None:
    """Make every mask a constant."""
    masks = {port.name: port for port in contract.masks}
    for value in [value for value in step.graph.inputs if value.name in masks]:
        port = masks[str(value.name)]
        frames = port.here(contract.chunk_multiple)
        step.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.ones(port.shape(batch=1, frames=frames), bool))
        step.graph.register_initializer(value)


def _shapes(step: ir.Model, contract: Contract) -> Shapes:
    """The shape of every wire, as a run shows it: behind some operators inference knows none."""
    seen = step.clone()
    given = {value.name for value in seen.graph.outputs}
    seen.graph.outputs.extend(v for v in _made(seen) if v.name not in given)
    rng, frames = np.random.default_rng(0), contract.chunk_multiple
    feeds = random_inputs(contract, rng, batch=1, frames=frames)
    feeds |= {s.input_name: np.zeros(s.shape(batch=1), s.dtype) for s in contract.states}
    session = session_of(seen)
    names = [node.name for node in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True)) | feeds
    return {value: found[str(value.name)].shape for value in (*_made(step), *step.graph.inputs)}


def _made(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs if value.name]


def _origins(step: ir.Model, shapes: Shapes) -> dict[ir.Value, ir.Value]:
    """For each wire that is only another shape of a wire before it, the first of these."""
    origins: dict[ir.Value, ir.Value] = {}
    for node in step.graph:
        value = node.outputs[0]
        origin = _origin(node, shapes)
        if origin in shapes and value in shapes and _count(shapes[origin]) == _count(shapes[value]):
            origins[value] = origins.get(origin, origin)
    return origins


def _count(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _origin(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The wire whose numbers a node's first output holds, in the same order."""
    if node.op_type in _RESHAPING:
        return node.inputs[0]
    if node.op_type == "Transpose":
        return node.inputs[0] if _keeps_order(node, shapes) else None
    if node.op_type == "Gather":  # the only one there is: as many numbers come out as went in
        index = _constant(node.inputs[1])
        return node.inputs[0] if index is not None and index.size == 1 else None
    if node.op_type == "Where":
        return node.inputs[1] if _is_true(node.inputs[0]) else None
    if node.op_type == "Slice":
        return _sliced_part(node, shapes)
    if node.op_type in _RECURRENT and len(node.outputs) > 1 and node.outputs[1].name:
        return node.outputs[1]  # after one frame, all outputs are the last one
    return None


def _keeps_order(node: ir.Node, shapes: Shapes) -> bool:
    """Whether a Transpose moves axes of length 1 only."""
    value = node.inputs[0]
    shape = () if value is None else shapes.get(value, ())
    perm = node.attributes.get_ints("perm", tuple(reversed(range(len(shape)))))
    moved = [axis for axis in perm if len(perm) == len(shape) and shape[axis] != 1]
    return moved == sorted(moved)


def _is_true(value: ir.Value | None) -> bool:
    constant = _constant(value)
    return constant is not None and bool(constant.all())


def _sliced_part(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The part of a Concat that a Slice takes out of it, if it is just that."""
    whole = node.inputs[0]
    concat = None if whole is None else whole.producer()
    bounds = [_constant(value) for value in node.inputs[1:]]
    if whole is None or concat is None or concat.op_type != "Concat" or len(bounds) < 3:
        return None
    if any(bound is None or bound.shape != (1,) for bound in bounds):
        return None
    start, stop, axis, *step = (int(bound[0]) for bound in bounds if bound is not None)
    if step not in ([], [1]) or axis != concat.attributes.get_int("axis"):
        return None
    return _part(
        concat.inputs, range(*slice(start, stop).indices(shapes[whole][axis])), axis, shapes
    )


def _part(
    parts: Sequence[ir.Value | None], taken: range, axis: int, shapes: Shapes
) -> ir.Value | None:
    start = 0
    for part in parts:
        if part not in shapes:
            return None
        stop = start + shapes[part][axis]
        if (start, stop) == (taken.start, taken.stop):
            return part
        start = stop
    return None


def _constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


class _Wires:
    """Which wires of a graph hold the same numbers in the same order.

    Attributes:
        shapes: of all wires, as they are read.
    """

    def __init__(self, step: ir.Model, shapes: Shapes) -> None:
        self.shapes = shapes
        self._graph = step.graph
        self._origins = _origins(step, shapes)
        self._made = dict(shapes)  # the shapes of wires as they come out
        self._sources = defaultdict[ir.Value, list[ir.Value]](list)  # all that hold an origin's
        for value in (*step.graph.inputs, *_made(step)):
            if not self._is_reshaped(value):
                self._sources[self._origin(value)].append(value)

    def choose_input_shapes(self) -> None:
        """Give each input of the graph the shape under which most nodes read it."""
        wanted = defaultdict[ir.Value, Counter[Shape]](Counter)
        for _, _, value in self._reads():
            wanted[self._origin(value)][self.shapes[value]] += 1
        for value in self._graph.inputs:
            if wanted[value]:
                self._made[value] = wanted[value].most_common(1)[0][0]
                value.shape = ir.Shape(self._made[value])

    def read_origins(self) -> None:
        """Let every node read what its inputs were made of, reshaped only where it must be."""
        for node, place, value in list(self._reads()):
            source = self._source(self._origin(value), self.shapes[value])
            node.replace_input_with(place, source)

    def give_origins(self) -> None:
        """Let the graph give what its outputs were made of, each under the shape it has."""
        outputs = self._graph.outputs
        for place, value in enumerate(outputs):
            if self._is_reshaped(value):
                outputs[place] = self._named(value, self._free_source(self._origin(value)))

    def _origin(self, value: ir.Value) -> ir.Value:
        return self._origins.get(value, value)

    def _is_reshaped(self, value: ir.Value) -> bool:
        """Whether its node does nothing but give another wire another shape."""
        node = value.producer()
        return value in self._origins and node is not None and node.op_type not in _RECURRENT

    def _reads(self) -> Iterator[tuple[ir.Node, int, ir.Value]]:
        """The wires that nodes read which do more than reshape them."""
        for node in self._graph:
            if not self._is_reshaped(node.outputs[0]):
                for place, value in enumerate(node.inputs):
                    if value is not None and value in self.shapes:
                        yield node, place, value

    def _source(self, origin: ir.Value, shape: Shape) -> ir.Value:
        """A wire of this shape that holds the numbers of `origin`."""
        for source in self._sources[origin]:
            if self._made[source] == shape:
                return source
        to = ir.Value(name=f"{origin.name}.as.{len(self._sources[origin])}.shape")
        to.const_value = ir.tensor(np.array(shape, np.int64), name=to.name)
        self._graph.register_initializer(to)
        reshape = ir.node("Reshape", [origin, to])
        reshape.outputs[0].name = f"{origin.name}.as.{len(self._sources[origin])}"
        return self._add(reshape, origin, shape)

    def _free_source(self, origin: ir.Value) -> ir.Value:
        """A wire that holds the numbers of `origin` and is no output of the graph yet."""
        for source in self._sources[origin]:
            if source.producer() is not None and not source.is_graph_output():
                return source
        return self._add(ir.node("Identity", [origin]), origin, self._made[origin])

    def _add(self, node: ir.Node, origin: ir.Value, shape: Shape) -> ir.Value:
        self._graph.append(node)
        self._made[node.outputs[0]] = shape
        self._sources[origin].append(node.outputs[0])
        return node.outputs[0]

    def _named(self, output: ir.Value, source: ir.Value) -> ir.Value:
        """`source`, to stand in the place of an output."""
        output.name, source.name = f"{output.name}.reshaped", output.name
        source.type, source.shape = output.type, ir.Shape(self._made[source])
        return source
