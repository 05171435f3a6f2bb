"""Describes an offline graph as a contract: its ports, their axes, and the ids they take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import onnx_ir as ir

from rnnx_exporters.lengths import least_frames
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_runtime.contract import DTYPES, Contract, Dims, Port
from rnnx_runtime.count import Count
from rnnx_runtime.errors import ExportError

BATCH = "batch"
TIME = "time"
_KEEP_IDS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def describe(model: ir.Model, *, time: str = TIME) -> Contract:
    """The contract of an offline graph.

    Args:
        model: the graph; free axes carry names.
        time: the name of its time axis.

    Raises:
        ExportError: an input or output has no shape, or a dtype no stream can carry.
    """
    batch = _batch_name(model.graph.inputs, time)
    lengths = lengths_inputs(model)
    inputs = [_at_its_rate(_port(value, batch, time), time) for value in model.graph.inputs]
    return Contract(
        inputs=tuple(
            replace(port, counts_frames=value in lengths)
            for port, value in zip(inputs, model.graph.inputs, strict=True)
        ),
        outputs=tuple(_port(value, batch, time) for value in model.graph.outputs),
        first_chunk=least_frames(model, time),
    )


def _batch_name(inputs: Iterable[ir.Value], time: str) -> str:
    """`"batch"`, or the only other name a free axis has."""
    names = {dim for value in inputs for dim in dims_of(value) if isinstance(dim, str)} - {time}
    return names.pop() if len(names) == 1 else BATCH


def lengths_inputs(model: ir.Model) -> list[ir.Value]:
    """The inputs that hold the lengths of the sequences: integer vectors behind `sequence_lens`."""
    found: list[ir.Value] = []
    for node in recurrent_nodes(model):
        if len(node.inputs) > 4 and node.inputs[4] is not None:
            found += [value for value in _sources(node.inputs[4]) if _is_vector_of_integers(value)]
    return found


def _sources(value: ir.Value) -> Iterator[ir.Value]:
    """The graph inputs a wire is computed from."""
    node = value.producer()
    if node is None:
        yield from [value] if value.is_graph_input() else []
        return
    for source in node.inputs:
        if source is not None:
            yield from _sources(source)


def _is_vector_of_integers(value: ir.Value) -> bool:
    integers = (ir.DataType.INT32, ir.DataType.INT64)
    return value.dtype in integers and value.shape is not None and len(value.shape) == 1


def dims_of(value: ir.Value) -> Dims:
    """The value's shape; free axes by name.

    Raises:
        ExportError: the shape is not known.
    """
    if value.shape is None:
        raise ExportError(
            f"the shape of {value.name!r} is not known",
            hint="Run onnx.shape_inference on the file first.",
        )
    return tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape)


def _port(value: ir.Value, batch: str, time: str) -> Port:
    dims = dims_of(value)
    dtype = "" if value.dtype is None else value.dtype.numpy().name
    if dtype not in DTYPES:
        raise ExportError(
            f"{value.name!r} is of dtype {dtype or 'unknown'!r}, which rnnx does not take"
        )
    return Port(
        name=str(value.name),
        dtype=dtype,
        dims=dims,
        batch_axis=dims.index(batch) if batch in dims else None,
        time_axis=_time_axis(dims, time),
        num_embeddings=_num_embeddings(value) if dtype.startswith("int") else None,
    )


def _at_its_rate(port: Port, time: str) -> Port:
    """An input of which several frames come with each frame of time: `160*time`."""
    dim = "" if port.time_axis is None else str(port.dims[port.time_axis])
    rate = re.fullmatch(rf"(\d+) *\* *{re.escape(time)}", dim)
    if rate is None:
        return port
    count = Count().then(multiplier=int(rate[1]))
    return replace(port, stride=Fraction(1, int(rate[1])), count=count, length=count)


def _time_axis(dims: Dims, time: str) -> int | None:
    """The axis of that name, or the one whose length is computed from it, `(time - 1) // 2` say."""
    if time in dims:
        return dims.index(time)
    computed = [axis for axis, dim in enumerate(dims) if time in re.findall(r"\w+", str(dim))]
    return computed[0] if computed else None


def _num_embeddings(value: ir.Value) -> int | None:
    """The rows of the table that `value` looks ids up in, if it does."""
    for node in value.consumers():
        if node.op_type == "Gather" and node.inputs[1] is value:
            table = node.inputs[0]
            if table is not None and table.shape is not None and isinstance(table.shape[0], int):
                return table.shape[0]
        if node.op_type in _KEEP_IDS and (found := _num_embeddings(node.outputs[0])):
            return found
    return None
