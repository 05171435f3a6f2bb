"""Turns an offline graph into a streaming one: its states become inputs and outputs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters import artifact
from rnnx_exporters.cells import OPERATORS
from rnnx_exporters.describe import TIME, describe, dims_of
from rnnx_exporters.proof import prove_streaming, run_constant
from rnnx_exporters.rules.recurrent import SEQUENCE_LENS
from rnnx_exporters.tidy import layer_of, module_of, recurrent_nodes
from rnnx_exporters.timeline import Fact, Frames, Length, follow, refuse
from rnnx_runtime.contract import Contract, Port, State
from rnnx_runtime.errors import NotStreamableError

_FIRST_STATE = 5
_KINDS = ("h", "c")
_OLDEST_OPSET = 13  # since it, Squeeze and Unsqueeze take their axes as an input
_STATE_NAME = re.compile(r"s\d{3,}_(in|out)")
# What moves a state that is passed in to where it is used, and computes nothing.
_MOVES = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
)


def to_streaming(
    src: str | os.PathLike[str], dst: str | os.PathLike[str], *, time: str = TIME
) -> Contract:
    """Make the ONNX file `src`, whoever exported it, a streaming artifact `dst`.

    Args:
        src: an offline graph, its time axis free and named `time`.
        dst: the file to write.
        time: the name of the time axis.

    Returns:
        The artifact's contract.

    Raises:
        ArtifactError: `src` is missing or not ONNX.
        NotStreamableError: the network cannot run frame after frame; names the node and the reason.
    """
    model = artifact.load_graph(src)
    common.ShapeInferencePass()(model)
    return write_streaming(model, describe(model, time=time), dst)


def write_streaming(model: ir.Model, contract: Contract, path: str | os.PathLike[str]) -> Contract:
    """Rewrite `model` in place, prove it against what it was, and write it.

    Args:
        model: an offline graph.
        contract: its description.
        path: the file to write.

    Raises:
        NotStreamableError: the network cannot run frame after frame, or the proof failed.
    """
    offline = model.clone()
    contract = artifact.seal(model, stream_graph(model, contract))
    with artifact.writing(model, path) as beside:
        prove_streaming(offline, beside, contract)
    return contract


def stream_graph(model: ir.Model, contract: Contract) -> Contract:
    """Rewrite `model` in place; its contract as a streaming artifact.

    Raises:
        NotStreamableError: the network cannot run frame after frame.
    """
    _refuse_old(model)
    _refuse_state_names(model)
    _refuse_lengths(model)
    facts = follow(model, {port.name: _fact(port) for port in contract.inputs})
    _refuse_untimely(model, contract, facts)
    states = tuple(_lift_all(model))
    common.RemoveUnusedNodesPass()(model)
    _drop_state_inputs(model, contract)
    left = {value.name for value in model.graph.inputs}
    return dataclasses.replace(
        contract,
        inputs=tuple(port for port in contract.inputs if port.name in left),
        outputs=tuple(_timed(port, facts.get(_output(model, port))) for port in contract.outputs),
        states=states,
        streaming=True,
    )


def _refuse_lengths(model: ir.Model) -> None:
    for node in recurrent_nodes(model):
        if len(node.inputs) > SEQUENCE_LENS and node.inputs[SEQUENCE_LENS] is not None:
            raise refuse(
                node,
                "it takes the lengths of its sequences, which a stream does not know",
                "A stream is as long as what is fed to it; leave the packing out.",
            )


def _fact(port: Port) -> Fact:
    return None if port.time_axis is None else Frames(port.time_axis)


def _timed(port: Port, fact: Fact) -> Port:
    axis = fact.axis if isinstance(fact, Frames) else None
    return dataclasses.replace(port, time_axis=axis)


def _output(model: ir.Model, port: Port) -> ir.Value:
    return next(value for value in model.graph.outputs if value.name == port.name)


def _refuse_old(model: ir.Model) -> None:
    version = model.opset_imports.get("", _OLDEST_OPSET)
    if version < _OLDEST_OPSET:
        raise NotStreamableError(
            f"the graph has opset {version}; streaming needs {_OLDEST_OPSET} or later",
            hint="Convert it first: onnx.version_converter.convert_version(model, 18).",
        )


def _refuse_state_names(model: ir.Model) -> None:
    taken = [value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)]
    clash = next(filter(_STATE_NAME.fullmatch, taken), None)
    if clash:
        raise NotStreamableError(
            f"{clash!r} is what a state is named: the graph streams already, or a port is misnamed",
            hint="Give the offline graph, or name its inputs and outputs otherwise.",
        )


def _refuse_untimely(model: ir.Model, contract: Contract, facts: Mapping[ir.Value, Fact]) -> None:
    if all(port.time_axis is None for port in contract.inputs):
        raise NotStreamableError(
            f"no input has a free axis named {TIME!r}",
            hint="Name it in dynamic_shapes, or tell to_streaming its name with time=...",
        )
    known = {str(value.name): facts.get(value) for value in model.graph.outputs}
    counting = [name for name, fact in known.items() if isinstance(fact, Length)]
    if counting:
        raise NotStreamableError(
            f"output {counting[0]!r} counts the frames, which a stream does not know",
            hint="Leave it out of what the model returns.",
        )
    if not any(isinstance(fact, Frames) for fact in known.values()) and not recurrent_nodes(model):
        raise NotStreamableError("no output depends on the frames, so there is nothing to stream")


def _lift_all(model: ir.Model) -> Iterator[State]:
    """Make every recurrent state an input and an output of the graph."""
    nodes = [node for node in model.graph if node.op_type in OPERATORS]
    inside = [node for node in recurrent_nodes(model) if node not in nodes]
    if inside:
        raise refuse(inside[0], "it stands in a subgraph", None)
    places = [(node, kind) for node in nodes for kind in _kinds(node)]
    starts = [_initial(model, node, kind) for node, kind in places]
    for count, ((node, kind), start) in enumerate(zip(places, starts, strict=True)):
        yield _lift(model, node, kind, f"s{count:03d}", start)


def _kinds(node: ir.Node) -> tuple[str, ...]:
    return _KINDS if node.op_type == "LSTM" else _KINDS[:1]


def _lift(
    model: ir.Model, node: ir.Node, kind: str, name: str, initial: npt.NDArray[Any] | None
) -> State:
    """Take the state `kind` of a node from the input `{name}_in`, give it to `{name}_out`."""
    place = _KINDS.index(kind)
    state = State(
        name=name,
        dtype="float32",
        dims=(_batch_dim(node), node.attributes["hidden_size"].as_int()),
        kind=kind,
        module=module_of(node),
        layer=layer_of(node),
        initial=initial,
    )
    axis = _axis_zero(model)
    _complete_outputs(node, name)
    taken = _shape(ir.Value(name=state.input_name), state)
    before = ir.node("Unsqueeze", [taken, axis], name=state.input_name)
    after = ir.node("Squeeze", [node.outputs[1 + place], axis], name=state.output_name)
    after.outputs[0].name = state.output_name
    _shape(after.outputs[0], state)
    model.graph.insert_before(node, before)
    model.graph.insert_after(node, after)
    node.resize_inputs(max(len(node.inputs), _FIRST_STATE + place + 1))
    node.replace_input_with(_FIRST_STATE + place, before.outputs[0])
    model.graph.inputs.append(taken)
    model.graph.outputs.append(after.outputs[0])
    return state


def _complete_outputs(node: ir.Node, name: str) -> None:
    """Give the node all its state outputs; an exporter may have left out unused ones."""
    node.resize_outputs(1 + len(_kinds(node)))
    for value, letter in zip(node.outputs, ("Y", "Y_h", "Y_c"), strict=False):
        value.name = value.name or f"{name}.{letter}"  # foreign nodes may have no name


def _batch_dim(node: ir.Node) -> int | str:
    x = node.inputs[0]
    assert x is not None
    return dims_of(x)[1]


def _shape(value: ir.Value, state: State) -> ir.Value:
    value.shape = ir.Shape(state.dims)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    return value


def _axis_zero(model: ir.Model) -> ir.Value:
    name = "rnnx.axis_zero"
    found = model.graph.initializers.get(name)
    if found is None:
        found = ir.Value(name=name, const_value=ir.tensor(np.array([0]), name=name))
        found.shape, found.type = ir.Shape([1]), ir.TensorType(ir.DataType.INT64)
        model.graph.register_initializer(found)
    return found


def _initial(model: ir.Model, node: ir.Node, kind: str) -> npt.NDArray[Any] | None:
    """The state before the first frame, `[hidden_size]`; None for zeros.

    A state that the user passes in is the stream's own from now on, and starts at zeros.
    """
    position = _FIRST_STATE + _KINDS.index(kind)
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None or _is_passed_in(value):
        return None
    if _comes_from_input(value):
        raise refuse(
            node,
            "its initial state is computed from an input, and the stream would forget that input",
            "Compute it before, and give the model the initial state itself as an argument.",
        )
    rows = run_constant(model, value)[0]
    if np.any(rows != rows[:1]):
        raise refuse(node, "its initial state differs between the sequences of a batch", None)
    return rows[0] if np.any(rows) else None


def _is_passed_in(value: ir.Value) -> bool:
    """Whether it is an input of the graph, as it came."""
    node = value.producer()
    if node is None or node.op_type not in _MOVES or node.inputs[0] is None:
        return value.is_graph_input()
    return _is_passed_in(node.inputs[0])


def _comes_from_input(value: ir.Value) -> bool:
    """Whether its content, not only its shape, comes from an input of the graph."""
    node = value.producer()
    if node is None:
        return value.is_graph_input()
    if node.op_type in ("Shape", "Size"):
        return False
    return any(source is not None and _comes_from_input(source) for source in node.inputs)


def _drop_state_inputs(model: ir.Model, contract: Contract) -> None:
    """Remove the inputs that only held initial states: the stream carries them now."""
    for value in list(model.graph.inputs):
        port = next((p for p in contract.inputs if p.name == value.name), None)
        if port is not None and port.time_axis is None and not value.uses():
            model.graph.inputs.remove(value)
