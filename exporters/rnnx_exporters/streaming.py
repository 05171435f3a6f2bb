"""Turns an offline graph into a streaming one: what it must remember becomes inputs and outputs."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters import artifact
from rnnx_exporters.clock import Clock
from rnnx_exporters.describe import TIME, describe
from rnnx_exporters.fixed_shapes import fix_shapes
from rnnx_exporters.lifting import drop_zero_states
from rnnx_exporters.memory import Memory
from rnnx_exporters.rules.recurrent import SEQUENCE_LENS
from rnnx_exporters.step_record import attach_step
from rnnx_exporters.streaming_proof import prove_streaming
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_exporters.timeline import Fact, Frames, Length, Plan, Refused, follow, refuse
from rnnx_exporters.timetable import note
from rnnx_exporters.wire_shapes import WireShapes, complete, forget_shapes
from rnnx_runtime.contract import METADATA_KEY, Contract, Dims, Port
from rnnx_runtime.errors import NotStreamableError
from rnnx_runtime.files import writable

_OLDEST_OPSET = 13  # since it, Squeeze and Unsqueeze take their axes as an input
_STATE_NAME = re.compile(r"(s\d{3,}_(in|out))|(mask\d{3,})")


def to_streaming(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    time: str = TIME,
    chunk: int | None = None,
) -> Contract:
    """Make the ONNX file `src`, whoever exported it, a streaming artifact `dst`.

    Args:
        src: an offline graph, its time axis free and named `time`.
        dst: the file to write; may be `src`.
        time: the name of the time axis.
        chunk: make every call take so many frames, of one sequence: all shapes are numbers then,
            as some runtimes want them. What frames wait for adds to the delay.

    Returns:
        The artifact's contract.

    Raises:
        ArtifactError: `src` is missing or not ONNX, or `dst` has no folder.
        NotStreamableError: the network cannot run frame after frame; names the node and the reason.
    """
    writable(dst)
    model = artifact.load_graph(src)
    common.ShapeInferencePass()(model)
    return write_streaming(model, _told(model, describe(model, time=time)), dst, chunk=chunk)


def _told(model: ir.Model, contract: Contract) -> Contract:
    """The contract, with what that of an offline artifact tells of its source."""
    text = model.metadata_props.get(METADATA_KEY)
    if text is None:
        return contract
    known = Contract.from_json(text)
    told = {"sample_rate", "labels", "source", "quantization"}
    return dataclasses.replace(contract, **{name: getattr(known, name) for name in told})


def write_streaming(
    model: ir.Model,
    contract: Contract,
    path: str | os.PathLike[str],
    *,
    chunk: int | None = None,
) -> Contract:
    """Rewrite `model` in place, prove it against what it was, and write it.

    Args:
        model: an offline graph.
        contract: its description.
        path: the file to write.
        chunk: how many frames every call takes, if that is to be fixed.

    Raises:
        NotStreamableError: the network cannot run frame after frame, or the proof failed.
    """
    prepare(model, contract)
    offline = model.clone()
    streaming = artifact.seal(model, stream_graph(model, contract, chunk))
    attach_step(model, streaming)
    clocks = follow(offline, {port.name: _fact(port) for port in contract.inputs}).clocks()
    with artifact.writing(model, path) as beside:
        prove_streaming(offline, beside, streaming, clocks)
    return streaming


def prepare(model: ir.Model, contract: Contract) -> None:
    """Complete the shapes of an offline graph in place, and leave out states that are zeros."""
    drop_zero_states(model)
    complete(model, contract)


def stream_graph(model: ir.Model, contract: Contract, chunk: int | None = None) -> Contract:
    """Rewrite `model` in place; its contract as a streaming artifact.

    Raises:
        NotStreamableError: the network cannot run frame after frame.
    """
    plan, memory = planned(model, contract, chunk)
    facts = {value.name: plan.facts.get(value) for value in model.graph.outputs}
    note(model, plan, memory)
    _carry_out(plan, memory)
    common.RemoveUnusedNodesPass()(model)
    _drop_state_inputs(model, contract)
    forget_shapes(model)
    left = {value.name for value in model.graph.inputs}
    outputs = {value.name: value for value in model.graph.outputs}
    streaming = dataclasses.replace(
        contract,
        inputs=tuple(port for port in contract.inputs if port.name in left),
        outputs=tuple(
            _timed(port, outputs[port.name], facts[port.name], memory) for port in contract.outputs
        ),
        states=tuple(memory.states),
        masks=tuple(memory.masks.values()),
        first_chunk=chunk or memory.first_chunk,
        chunk_multiple=chunk or memory.chunk_multiple,
        chunk=chunk,
        streaming=True,
    )
    return streaming if chunk is None else fix_shapes(model, streaming)


def planned(model: ir.Model, contract: Contract, chunk: int | None = None) -> tuple[Plan, Memory]:
    """What a stream must remember of an offline graph, and where that is to stand.

    Raises:
        NotStreamableError: the network cannot run frame after frame.
    """
    _refuse_old(model)
    _refuse_state_names(model)
    _refuse_lengths(model)
    inputs = {port.name: _fact(port) for port in contract.inputs}
    plan, shapes = follow(model, inputs), WireShapes(model.clone(), contract)
    _refuse_untimely(model, contract, plan.facts)
    memory = Memory(model, plan, shapes)
    if chunk is None:
        return plan, memory
    if chunk < 1 or chunk % memory.chunk_multiple:
        raise NotStreamableError(
            f"a chunk of {chunk} frames is no multiple of {memory.chunk_multiple},"
            " which the network's strides make of its input",
            hint=f"Take a multiple of {memory.chunk_multiple}.",
        )
    plan = follow(model, inputs, chunk=chunk)
    return plan, Memory(model, plan, shapes, chunk)


def _refuse_lengths(model: ir.Model) -> None:
    for node in recurrent_nodes(model):
        if len(node.inputs) > SEQUENCE_LENS and node.inputs[SEQUENCE_LENS] is not None:
            raise refuse(
                node,
                "it takes the lengths of its sequences, which a stream does not know",
                "A stream is as long as what is fed to it; leave the packing out.",
            )


def _fact(port: Port) -> Fact:
    if port.time_axis is None:
        return None
    return Frames(port.time_axis, Clock(port.stride, port.count, port.length))


def _carry_out(plan: Plan, memory: Memory) -> None:
    """Change the graph as planned."""
    for edit in plan.edits:
        try:
            edit.apply(memory)
        except Refused as error:
            raise refuse(edit.node, str(error), error.hint) from error
    memory.model.graph.sort()


def _timed(port: Port, value: ir.Value, fact: Fact, memory: Memory) -> Port:
    """An output, as the stream gives it."""
    if not isinstance(fact, Frames):
        return dataclasses.replace(port, time_axis=None)
    clock = fact.clock
    seen = None if clock.first is None else math.ceil(clock.last - clock.first) + 1
    lag = clock.lag(memory.past or memory.first_chunk) * clock.stride
    return dataclasses.replace(
        port,
        dims=_named_time(port, value, fact, memory),
        time_axis=fact.axis,
        delay=max(0, math.ceil(lag)),
        stride=clock.stride,
        count=memory.here(clock),
        length=clock.length,
        skip=memory.skip(clock),
        lookahead=math.ceil(clock.last),
        receptive_field=seen,
    )


def _named_time(port: Port, value: ir.Value, frames: Frames, memory: Memory) -> Dims:
    """The axes of an output, its time axis named otherwise where it counts otherwise."""
    same = frames.clock.stride == 1 and memory.count(frames.clock) == memory.first_chunk
    if same and frames.axis == port.time_axis:
        return port.dims
    name = f"{port.name}_time"
    dims = (*port.dims[: frames.axis], name, *port.dims[frames.axis + 1 :])
    value.shape = ir.Shape(dims)
    return dims


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
    merged = [name for name, f in known.items() if isinstance(f, Frames) and f.rows]
    if merged:
        raise NotStreamableError(
            f"output {merged[0]!r} has one axis for batch and time",
            hint="Reshape it to [batch, time, ...] again.",
        )
    if not any(isinstance(fact, Frames) for fact in known.values()) and not recurrent_nodes(model):
        raise NotStreamableError("no output depends on the frames, so there is nothing to stream")


def _drop_state_inputs(model: ir.Model, contract: Contract) -> None:
    """Remove the inputs that only held initial states: the stream carries them now."""
    for value in list(model.graph.inputs):
        port = next((p for p in contract.inputs if p.name == value.name), None)
        if port is not None and port.time_axis is None and not value.uses():
            model.graph.inputs.remove(value)
