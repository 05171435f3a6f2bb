"""Finds the wires of an artifact's graph of which the torch model tells the values; cuts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx.parity.watching import INPUTS, OUTPUTS, Place
from rnnx_exporters.cells import OPERATORS
from rnnx_exporters.tidy import MODULE_KEY, layer_of
from rnnx_runtime.contract import Contract

_RECURRENT = OPERATORS | {"DynamicQuantizeLSTM"}


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire of the graph.

    Attributes:
        block: the name of the block that it ends.
        module: the torch module that the block is of, or "".
        place: where the torch model has the same tensor.
        value: what the graph computes.
        uses: nodes and positions among their inputs that read it; None for all.
    """

    block: str
    module: str
    place: Place
    value: ir.Value
    uses: tuple[tuple[ir.Node, int], ...] | None = None

    @property
    def is_certain(self) -> bool:
        """Whether it must be the tensor of its place: a layer's, an output's or a state's."""
        return self.place.layer is not None or not self.place.module


def find_wires(model: ir.Model, contract: Contract, places: Collection[Place]) -> list[Wire]:
    """The wires of these places in the order in which they are computed, each once.

    What is several places is that of a recurrent layer, else that of the innermost module.
    """
    order = {node: position for position, node in enumerate(model.graph)}
    found: dict[tuple[ir.Value, object], Wire] = {}
    calls = Counter(place.module for place in places if place.port == "output")
    modules = _module_wires(model, contract, calls)
    for wire in (*_layer_wires(model), *modules, *_ends(model, contract)):
        if wire.value.producer() in order and wire.place in places:
            found.setdefault((wire.value, wire.uses), wire)
    return sorted(found.values(), key=lambda wire: _position(wire, order))


def expose(model: ir.Model, wires: Sequence[Wire]) -> None:
    """Make the wires outputs of the graph, in place."""
    common.ShapeInferencePass()(model)
    for value in dict.fromkeys(wire.value for wire in wires):
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)  # ONNX knows not all operators
        if not value.is_graph_output():
            model.graph.outputs.append(value)


def cut(model: ir.Model, wires: Sequence[Wire]) -> list[str]:
    """Let what reads the wires read new inputs of the graph instead, in place; the inputs' names.

    A wire that is read at a layer's port is cut there, whatever else is cut of it.
    """
    names = [f"given{number:03d}" for number in range(len(wires))]
    pairs = list(zip(wires, names, strict=True))
    for wire, name in sorted(pairs, key=lambda pair: pair[0].uses is None):
        given = ir.Value(name=name, type=wire.value.type)
        model.graph.inputs.append(given)
        for node, position in wire.uses or tuple(wire.value.uses()):
            node.replace_input_with(position, given)
    return names


def modules_behind(wire: Wire, told: Collection[str]) -> tuple[str, ...]:
    """The modules that compute a wire of a graph that is cut, but its own and those `told` of."""
    found, nodes = set(), [wire.value.producer()]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        found |= {node.metadata_props.get(MODULE_KEY, ""), *_owners(node)}
        before = {value.producer() for value in node.inputs if value is not None} - seen
        seen |= before
        nodes += before
    own = {path for path in found if _are_related(path, wire.module)}
    return tuple(sorted(found - own - {"", *told}))


def _owners(node: ir.Node) -> Iterator[str]:
    """The modules whose weights a node reads, as those of a convolution that took in its norm."""
    for value in node.inputs:
        module, _, name = str(value.name if value is not None else "").rpartition(".")
        if name in ("weight", "bias"):
            yield module


def _are_related(path: str, other: str) -> bool:
    """Whether one module is the other, or within it."""
    one, two = f"{path}.", f"{other}."
    return one.startswith(two) or two.startswith(one)


def _layer_wires(model: ir.Model) -> Iterator[Wire]:
    """The ports of the recurrent nodes: what goes in, what comes out."""
    calls: Counter[tuple[str, int]] = Counter()
    for node in model.graph:
        if node.op_type not in _RECURRENT:
            continue
        module, layer = node.metadata_props.get(MODULE_KEY, ""), layer_of(node)
        call = calls[module, layer]
        calls[module, layer] += 1
        for position, port in INPUTS.items():
            value = node.inputs[position] if position < len(node.inputs) else None
            if value is not None:
                place = Place(module, call, layer, port)
                yield Wire(f"into {node.name}", module, place, value, ((node, position),))
        for position, port in OUTPUTS.items():
            if position < len(node.outputs) and node.outputs[position].name:
                place = Place(module, call, layer, port)
                yield Wire(str(node.name), module, place, node.outputs[position])


def _module_wires(model: ir.Model, contract: Contract, calls: Mapping[str, int]) -> Iterator[Wire]:
    """What leaves each module, inner ones first; the n-th such wire is of the n-th call."""
    own = {state.output_name for state in contract.states}
    for path in sorted(calls, key=lambda path: -path.count(".")):
        leaving = [value for value in _leaving(model, path) if value.name not in own]
        if len(leaving) != calls[path]:
            continue
        for call, value in enumerate(leaving):
            block = f"{path}.call{call + 1}" if call else path
            yield Wire(block, path, Place(path, call, None, "output"), value)


def _leaving(model: ir.Model, path: str) -> Iterator[ir.Value]:
    """The values that a module's nodes make, and others read."""
    for node in model.graph:
        if not _is_within(node, path):
            continue
        for value in node.outputs:
            read = any(not _is_within(reader, path) for reader in value.consumers())
            if read or value.is_graph_output():
                yield value


def _is_within(node: ir.Node, path: str) -> bool:
    return f"{node.metadata_props.get(MODULE_KEY, '')}.".startswith(f"{path}.")


def _ends(model: ir.Model, contract: Contract) -> Iterator[Wire]:
    """The outputs and states of the artifact."""
    names = {port.name: (port.name, "") for port in contract.outputs}
    names |= {state.output_name: (state.name, state.module) for state in contract.states}
    for value in model.graph.outputs:
        name, module = names[str(value.name)]
        yield Wire(name, module, Place("", 0, None, name), value)


def _position(wire: Wire, order: dict[ir.Node, int]) -> float:
    """What leads into a node stands right before it."""
    if wire.uses:
        return order[wire.uses[0][0]] - 0.5
    producer = wire.value.producer()
    return order[producer] if producer is not None else -1.0
