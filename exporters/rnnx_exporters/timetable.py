"""The timetable of a graph: for each wire from input to output, its time axis, stride and delay."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx_exporters import artifact
from rnnx_exporters.describe import TIME, describe
from rnnx_exporters.memory import Memory
from rnnx_exporters.tidy import MODULE_KEY
from rnnx_exporters.timeline import Frames, Plan
from rnnx_runtime.errors import ArtifactError

TIMETABLE_KEY = "rnnx.timetable"


@dataclass(frozen=True, slots=True)
class Row:
    """One wire that holds frames.

    Attributes:
        wire: its name.
        operator: what made it; "input" for an input.
        module: the torch module that came from, or an empty string.
        axis: its time axis.
        stride: input frames for one frame here, as in `"1/2"`.
        delay: input frames by which it lags the input.
        first, last: frame `t` here saw the input frames from `t * stride + first` to
            `t * stride + last`; `first` is None where it saw all before.
    """

    wire: str
    operator: str
    module: str
    axis: int
    stride: str
    delay: float
    first: float | None
    last: float


def timetable(path: str | os.PathLike[str], *, time: str = TIME) -> list[Row]:
    """The timetable of an ONNX file: of a streaming artifact that which it was made by.

    Raises:
        ArtifactError: the file is missing or not ONNX.
        NotStreamableError: an offline graph cannot run frame after frame; names where time is lost.
    """
    from rnnx_exporters.streaming import planned, prepare

    model = artifact.load_graph(path)
    kept = model.metadata_props.get(TIMETABLE_KEY)
    if kept is not None:
        return _read(kept)
    common.ShapeInferencePass()(model)
    contract = describe(model, time=time)
    prepare(model, contract)
    plan, memory = planned(model, contract)
    return list(rows(model, plan, memory))


def _read(text: str) -> list[Row]:
    try:
        found = [_held(Row(*record)) for record in json.loads(text)]
    except (TypeError, ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if not found:
        raise _damaged("it has no rows")
    return found


def _held(row: Row) -> Row:
    """The row, if every field is of its type."""
    numbers = [row.delay, row.last, 0 if row.first is None else row.first]
    texts = (row.wire, row.operator, row.module, row.stride)
    if not all(isinstance(text, str) for text in texts) or not isinstance(row.axis, int):
        raise TypeError(f"{row} is none")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"{row} is none")
    return row


def _damaged(reason: str) -> ArtifactError:
    return ArtifactError(
        f"the timetable in the file's metadata is damaged: {reason}",
        hint="Export the model again with this version of rnnx.",
    )


def rows(model: ir.Model, plan: Plan, memory: Memory) -> Iterator[Row]:
    """The rows of all wires that lead from an input to an output, in the graph's order."""
    leading = set(_leading(model.graph.outputs))
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        fact = plan.facts.get(value)
        if value in leading and isinstance(fact, Frames):
            yield _row(value, fact, memory)


def note(model: ir.Model, plan: Plan, memory: Memory) -> None:
    """Keep the timetable in the graph's metadata, for those who only have the streaming one."""
    records = [astuple(row) for row in rows(model, plan, memory)]
    model.metadata_props[TIMETABLE_KEY] = json.dumps(records, separators=(",", ":"))


def _row(value: ir.Value, frames: Frames, memory: Memory) -> Row:
    node, clock = value.producer(), frames.clock
    return Row(
        wire=str(value.name),
        operator="input" if node is None else node.op_type,
        module="" if node is None else node.metadata_props.get(MODULE_KEY, ""),
        axis=frames.axis,
        stride=str(clock.stride),
        delay=float(clock.lag(memory.past or memory.first_chunk) * clock.stride),
        first=None if clock.first is None else float(clock.first),
        last=float(clock.last),
    )


def _leading(outputs: Iterable[ir.Value]) -> Iterator[ir.Value]:
    """The wires that lead to the outputs."""
    left, seen = list(outputs), set[ir.Value]()
    while left:
        value = left.pop()
        if value not in seen:
            seen.add(value)
            yield value
            node = value.producer()
            left += [] if node is None else [source for source in node.inputs if source is not None]
